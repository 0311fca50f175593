"""The train set as validation sees it: without random transforms."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, Subset, TensorDataset

from lightning_trainingkit._lightning import isolate_rng
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["evaluation_view", "unwrapped"]

_TRANSFORMS = ("transform", "transforms", "target_transform", "augmentation", "_augmentation")
_READS = 8  # examples that are read twice to see a random transform


def evaluation_view(train_set: Dataset[Any], val_set: Dataset[Any] | None) -> tuple[Dataset[Any], str]:
    """The examples of a train set as validation sees them.

    - **One data set** for training and validation, as after ``random_split``: the train set as it is.
    - **Two data sets of one class**, with a transform in an attribute: a copy with the validation set's transforms.
    - **Otherwise** the train set as it is, if its examples stay the same when they are read again.

    Args:
        train_set: The train set.
        val_set: The DataModule's own validation set, None if there is none.

    Returns:
        A data set of the same examples, and a note where they see the transform of the training.

    Raises:
        WrongSetupError: If validation would see random transforms.
    """
    base, path = unwrapped(train_set)
    if val_set is not None:
        other, _ = unwrapped(val_set)
        if other is base:
            return train_set, ""
        named = [name for name in _TRANSFORMS if name in vars(base) and name in vars(other)]
        if type(base) is type(other) and named:
            twin = copy.copy(base)
            vars(twin).update({name: vars(other)[name] for name in named})
            for indices in reversed(path):
                twin = Subset(twin, indices)
            return twin, ""
    if _changes(train_set):
        raise WrongSetupError(
            f"`data` must show the images of a held-out fold without random transforms, got a {type(base).__name__} "
            "whose examples change when they are read again. Make the validation set of the same class as the train "
            "set, with the transform in an attribute `transform`."
        )
    unlike = val_set is not None and not isinstance(base, TensorDataset)
    return train_set, "Images of a held-out fold see the transform of the train set." if unlike else ""


def unwrapped(dataset: Any) -> tuple[Any, list[Any]]:
    """The data set below all ``Subset``, and their indices from the outside in."""
    path = []
    while type(dataset) is Subset:
        path.append(dataset.indices)
        dataset = dataset.dataset
    return dataset, path


def _changes(dataset: Any) -> bool:
    with isolate_rng():
        numbers = range(min(_READS, len(dataset)))
        return any(not _same(dataset[number], dataset[number]) for number in numbers)


def _same(one: Any, other: Any) -> bool:
    pairs = list(zip(tree_leaves(one), tree_leaves(other), strict=False))
    return all(
        a.shape == b.shape and torch.equal(a, b)
        if isinstance(a, Tensor) and isinstance(b, Tensor)
        else bool(np.array_equal(np.asarray(a), np.asarray(b)))
        for a, b in pairs
    )
