"""Let a DataModule serve one fold of its train set, for training and for validation."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from lightning_trainingkit._lightning import L, is_overridden, isolate_rng
from lightning_trainingkit.data._base import even_batches
from lightning_trainingkit.data._lightning import unrepeated
from lightning_trainingkit.tuning.folds.fold_labels import find_column, label_of
from lightning_trainingkit.tuning.folds.fold_view import evaluation_view, unwrapped
from lightning_trainingkit.tuning.folds.folds import Folds
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["fingerprint", "first_loader", "serve_fold", "train_loader"]

_OPTIONS = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("generator", "prefetch_factor", "persistent_workers"),
)
_LABELS = 16  # examples that are read where no attribute has the classes


def serve_fold(data: L.LightningDataModule, folds: Folds, number: int, examples: str | None = None) -> None:
    """Change a DataModule's loaders in place: train on a fold's training part, and validate on its held-out part.

    The DataModule's own validation set is not served, and its test set stays. Batch size, ``collate_fn`` and workers
    are those of its own loaders.

    Args:
        data: The DataModule.
        folds: The division of its train set.
        number: Number of the fold.
        examples: The ``fingerprint`` of the train set that was divided. None does not compare it.
    """
    own_train = data.train_dataloader
    own_val = data.val_dataloader if is_overridden("val_dataloader", data, L.LightningDataModule) else None

    served: list[Dataset[Any]] = []  # one for both parts: a split in `train_dataloader` may draw again

    def whole(loader: DataLoader[Any]) -> Dataset[Any]:
        if not served:
            _check_examples(loader.dataset, folds, examples)
            served.append(loader.dataset)
        return served[0]

    def train() -> DataLoader[Any]:
        loader = train_loader(own_train())
        part = Subset(whole(loader), folds.train(number))
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
        view, _ = evaluation_view(whole(loader), None if other is None else other.dataset)
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


def first_loader(given: Any) -> DataLoader[Any] | None:
    """The first of several loaders, None if it is no DataLoader."""
    while isinstance(given, Mapping | list | tuple) and given:
        given = next(iter(given.values() if isinstance(given, Mapping) else given))
    return given if isinstance(given, DataLoader) else None


def fingerprint(dataset: Dataset[Any]) -> str:
    """A short hash of which examples a train set has, and in which order.

    It covers the indices of its subsets, and its classes. Where no attribute has the classes, some examples are read.
    """
    base, path = unwrapped(dataset)
    column = find_column(dataset, ("targets", "labels", "y"))
    found = hashlib.sha1(f"{type(base).__qualname__} {len(base)}".encode())
    for indices in path:
        found.update(np.asarray(indices, dtype=np.int64).tobytes())
    if column is not None and column.dtype.kind in "iubf":
        found.update(column.astype(np.float64).tobytes())
    else:
        found.update(repr(_some_labels(dataset)).encode())
    return found.hexdigest()[:12]


def _some_labels(dataset: Any) -> list[Any]:
    """Labels of examples that are spread evenly. A label that changes when it is read again is None."""
    size = len(dataset)
    with isolate_rng():
        numbers = sorted({each * size // _LABELS for each in range(_LABELS)}) if size else []
        pairs = [(label_of(dataset[number]), label_of(dataset[number])) for number in numbers]
    return [one if one == other else None for one, other in pairs]


class _Served:
    """A loader method that stands in an instance. Lightning looks at ``__wrapped__`` to see that it is overridden."""

    def __init__(self, make: Callable[[], DataLoader[Any]]) -> None:
        self.__wrapped__ = make
        self._make = make

    def __call__(self) -> DataLoader[Any]:
        """Make the loader."""
        return self._make()


def _check_examples(dataset: Dataset[Any], folds: Folds, examples: str | None) -> None:
    size = len(dataset)  # type: ignore[arg-type]
    if size == folds.examples and (examples is None or fingerprint(dataset) == examples):
        return
    got = f"{size} examples, and {folds.examples}" if size != folds.examples else "other examples or another order than"
    raise WrongSetupError(
        f"`data` must have the same train set in each trial, got {got} when the folds were made. Give its "
        "shuffle or its split a seed, as in `random_split(..., generator=torch.Generator().manual_seed(0))`, and leave "
        "`data.` arguments that change it out."
    )


def _options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    return {name: getattr(loader, name) for name in _OPTIONS}
