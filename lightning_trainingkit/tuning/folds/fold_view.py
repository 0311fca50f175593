"""The train set as validation sees it: without random transforms."""

from typing import Any

from torch.utils.data import Dataset, Subset, TensorDataset

from lightning_trainingkit.tuning.folds.fold_reads import changes
from lightning_trainingkit.tuning.folds.fold_twin import twin_of
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["evaluation_view", "unwrapped"]


def evaluation_view(train_set: Dataset[Any], val_set: Dataset[Any] | None) -> tuple[Dataset[Any], str]:
    """The examples of a train set as validation sees them.

    - **One data set** for training and validation, as after ``random_split``: the train set as it is.
    - **Two data sets of one class**: a copy with the validation set's transforms and flags, see ``twin_of``.
    - **Otherwise** the train set as it is.

    Args:
        train_set: The train set.
        val_set: The DataModule's own validation set, None if there is none.

    Returns:
        A data set of the same examples, and a note on how they are read.

    Raises:
        WrongSetupError: If validation would see random transforms.
    """
    view, notes = _view(train_set, val_set)
    if view is not train_set or val_set is None or unwrapped(train_set)[0] is not unwrapped(val_set)[0]:
        _check_reads(view)
    return view, " ".join(notes)


def unwrapped(dataset: Any) -> tuple[Any, list[Any]]:
    """The data set below all ``Subset``, and their indices from the outside in."""
    path = []
    while type(dataset) is Subset:
        path.append(dataset.indices)
        dataset = dataset.dataset
    return dataset, path


def _view(train_set: Any, val_set: Any) -> tuple[Any, list[str]]:
    base, path = unwrapped(train_set)
    other, _ = unwrapped(val_set)
    if other is base or other is None:
        return train_set, []
    if type(base) is not type(other):
        plain = isinstance(base, TensorDataset)
        return train_set, [] if plain else ["Images of a held-out fold see the transform of the train set."]
    notes: list[str] = []

    def inner(one: Any, two: Any) -> Any:
        view, found = _view(one, two)
        notes.extend(found)
        return view

    twin, taken = twin_of(base, other, inner)
    if taken:
        notes.append(f"A held-out fold is read with the validation set's {', '.join(f'`{name}`' for name in taken)}.")
    if twin is base:
        return train_set, notes
    for indices in reversed(path):
        twin = Subset(twin, indices)
    return twin, notes


def _check_reads(view: Any) -> None:
    if changes(view):
        raise WrongSetupError(
            "`data` must show the images of a held-out fold without random transforms, got a "
            f"{type(unwrapped(view)[0]).__name__} whose examples change when they are read again. Make the validation "
            "set of the same class as the train set, with the transform in an attribute "
            "`transform`, or with a flag such as `train`."
        )
