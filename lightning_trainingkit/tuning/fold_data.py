"""Let a DataModule serve one fold of its train set, for training and for validation."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from lightning_trainingkit._lightning import L, is_overridden, isolate_rng
from lightning_trainingkit.data._base import even_batches
from lightning_trainingkit.data._lightning import unrepeated
from lightning_trainingkit.tuning.folds import Folds
from lightning_trainingkit.tuning.wrong_setup import WrongSetupError

__all__ = ["evaluation_view", "first_loader", "serve_fold", "train_loader"]

_TRANSFORMS = ("transform", "transforms", "target_transform", "augmentation", "_augmentation")
_OPTIONS = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("generator", "prefetch_factor", "persistent_workers"),
)
_READS = 8  # examples that are read twice to see a random transform


def serve_fold(data: L.LightningDataModule, folds: Folds, number: int) -> None:
    """Change a DataModule's loaders in place: train on a fold's training part, and validate on its held-out part.

    The DataModule's own validation set is not served, and its test set stays. Batch size, ``collate_fn`` and workers
    are those of its own loaders.

    Args:
        data: The DataModule.
        folds: The division of its train set.
        number: Number of the fold.
    """
    own_train = data.train_dataloader
    own_val = data.val_dataloader if is_overridden("val_dataloader", data, L.LightningDataModule) else None

    def train() -> DataLoader[Any]:
        loader = train_loader(own_train())
        part = Subset(_checked(loader.dataset, folds), folds.train(number))
        ranks = data.trainer.world_size if data.trainer is not None else 1
        size = loader.batch_size or 1
        # A last batch of one image has no variance for BatchNorm: torch raises.
        lone = -(-len(part) // ranks) > size > 1 and -(-len(part) // ranks) % size == 1
        shuffle = isinstance(loader.sampler, RandomSampler)
        return DataLoader(
            part, batch_size=size, shuffle=shuffle, drop_last=loader.drop_last or lone, **_options_of(loader)
        )

    def validation() -> DataLoader[Any]:
        loader = train_loader(own_train())
        other = first_loader(own_val()) if own_val is not None else None
        view, _ = evaluation_view(_checked(loader.dataset, folds), None if other is None else other.dataset)
        part = Subset(view, folds.validation(number))
        like = loader if other is None or other.batch_sampler is None else other
        sampler = unrepeated(part, "the held-out fold", data.trainer)
        size = like.batch_size or loader.batch_size or 1
        if sampler is not None:
            size = even_batches(len(part), sampler.num_replicas, size)
        return DataLoader(part, batch_size=size, sampler=sampler, **_options_of(like))

    vars(data)["train_dataloader"] = _Served(train)
    vars(data)["val_dataloader"] = _Served(validation)


def train_loader(given: Any) -> DataLoader[Any]:
    """Check that a train loader can be cut into folds.

    Raises:
        ValueError: If it is no single DataLoader with ``shuffle`` and ``batch_size`` over a data set with indices.
    """
    advice = "Give one DataLoader over a data set with indices, with `shuffle=True` and `batch_size`."
    if not isinstance(given, DataLoader) or type(given).__iter__ is not DataLoader.__iter__:
        raise WrongSetupError(f"`data` must have one train loader of torch, got {type(given).__name__}. {advice}")
    if isinstance(given.dataset, IterableDataset):
        raise WrongSetupError(f"`data` must have a train set with indices, got a stream. {advice}")
    sampler = given.sampler
    plain = isinstance(sampler, RandomSampler | SequentialSampler)
    resized = isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(sampler.data_source)
    )
    if type(given.batch_sampler) is not BatchSampler or not plain or resized:
        named = type(sampler if given.batch_sampler is not None else given.batch_sampler).__name__
        if type(given.batch_sampler) is not BatchSampler and given.batch_sampler is not None:
            named = type(given.batch_sampler).__name__
        raise WrongSetupError(
            f"`data` must have a train loader without a sampler of its own, got {named}, which cannot be cut into "
            f"folds. {advice}"
        )
    return given


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
    base, path = _unwrapped(train_set)
    if val_set is not None:
        other, _ = _unwrapped(val_set)
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


def first_loader(given: Any) -> DataLoader[Any] | None:
    """The first of several loaders, None if it is no DataLoader."""
    while isinstance(given, Mapping | list | tuple) and given:
        given = next(iter(given.values() if isinstance(given, Mapping) else given))
    return given if isinstance(given, DataLoader) else None


class _Served:
    """A loader method that stands in an instance. Lightning looks at ``__wrapped__`` to see that it is overridden."""

    def __init__(self, make: Callable[[], DataLoader[Any]]) -> None:
        self.__wrapped__ = make
        self._make = make

    def __call__(self) -> DataLoader[Any]:
        """Make the loader."""
        return self._make()


def _checked(dataset: Dataset[Any], folds: Folds) -> Dataset[Any]:
    size = len(dataset)  # type: ignore[arg-type]
    if size != folds.examples:
        raise WrongSetupError(
            f"`data` must have the same train set for each configuration, got {size} examples, and {folds.examples} "
            "when the folds were made. Keep its split fixed by a seed, and leave `data.` arguments that change it out."
        )
    return dataset


def _options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    return {name: getattr(loader, name) for name in _OPTIONS}


def _unwrapped(dataset: Any) -> tuple[Any, list[Any]]:
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
