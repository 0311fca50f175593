"""The train set as validation sees it: without random transforms."""

import copy
from typing import Any

from torch.utils.data import Dataset, Subset, TensorDataset

from lightning_trainingkit.tuning.folds.fold_reads import changes
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["evaluation_view", "unwrapped"]

_TRANSFORMS = ("transform", "transforms", "target_transform", "augmentation", "_augmentation")


def evaluation_view(train_set: Dataset[Any], val_set: Dataset[Any] | None) -> tuple[Dataset[Any], str]:
    """The examples of a train set as validation sees them.

    - **One data set** for training and validation, as after ``random_split``: the train set as it is.
    - **Two data sets of one class**, with a transform in an attribute: a copy with the validation set's transforms.
    - **Otherwise** the train set as it is.

    Args:
        train_set: The train set.
        val_set: The DataModule's own validation set, None if there is none.

    Returns:
        A data set of the same examples, and a note where they see the transform of the training.

    Raises:
        WrongSetupError: If examples of the copy, or of the train set, change when they are read again.
    """
    base, path = unwrapped(train_set)
    other, _ = unwrapped(val_set)
    if other is base:
        return train_set, ""
    mine, theirs = (getattr(each, "__dict__", {}) for each in (base, other))
    named = [name for name in _TRANSFORMS if name in mine and name in theirs]
    view, kept = train_set, False
    if other is not None and type(base) is type(other):
        functions = [name for name in mine if callable(mine[name]) and name not in named]
        kept = any(mine[name] != theirs.get(name) for name in functions)
        if named:
            view = copy.copy(base)
            vars(view).update({name: theirs[name] for name in named})
            for indices in reversed(path):
                view = Subset(view, indices)
    elif other is not None:
        kept = not isinstance(base, TensorDataset)
    if changes(view):
        raise WrongSetupError(
            f"`data` must show the images of a held-out fold without random transforms, got a {type(base).__name__} "
            "whose examples change when they are read again. Make the validation set of the same class as the train "
            "set, with all that is random in an attribute `transform`."
        )
    return view, "Images of a held-out fold see the transform of the train set." if kept else ""


def unwrapped(dataset: Any) -> tuple[Any, list[Any]]:
    """The data set below all ``Subset``, and their indices from the outside in."""
    path = []
    while type(dataset) is Subset:
        path.append(dataset.indices)
        dataset = dataset.dataset
    return dataset, path
