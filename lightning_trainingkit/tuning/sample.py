"""A few minibatches of a training set, read once and kept in memory."""

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_trainingkit._lightning import CombinedLoader, L
from lightning_trainingkit.tuning.trial import Data

__all__ = ["Sample"]


class Sample:
    """A few minibatches of a training set, which stay the same in all trials.

    - **A data set with indices**: the examples that the loader's own sampler draws first. Each is read once, which
      keeps random transforms from changing it. ``loader`` shuffles them, with the loader's batch size and collate_fn.
    - **A stream**, or a data set that gives whole batches: the first batches, as they come.

    Args:
        batches: Number of minibatches.

    Attributes:
        indices: The examples' indices in the data set. Empty for a stream.
        notes: Remarks.
        random_transforms: Whether a second reading of the first batch gave other inputs or targets.
    """

    def __init__(self, batches: int) -> None:
        self.indices: list[int] = []
        self.notes: list[str] = []
        self.random_transforms = False
        self._batches = batches
        self._examples: list[Any] = []  # or batches of a stream
        self._again: list[Any] = []  # the first batch, read a second time
        self._size: int | None = None
        self._collate: Callable[[Any], Any] | None = None

    def serve(self, module: L.LightningModule, data: Data, looks: bool = False) -> Data:
        """Let a copy of the module or its data give the sample in the place of the training set.

        Args:
            module: The copied module.
            data: Its copied data: a DataModule, a loader, or None.
            looks: Whether to give the batches of ``looks``, in their order.
        """
        make = self._looks if looks else self._shuffled
        source = data if isinstance(data, L.LightningDataModule) else module if data is None else None
        if source is None:
            return make(data)
        vars(source)["train_dataloader"] = _Served(source.train_dataloader, make)
        return data

    def all_at_once(self) -> Any:
        """Return all examples as one batch. None for a stream."""
        return self._join(self._examples) if self.indices else None

    @property
    def size(self) -> int:
        """Number of examples, or of batches of a stream."""
        return len(self._examples)

    def _shuffled(self, loader: Any) -> DataLoader[Any]:
        self._draw(loader)
        if self._size is None:
            return DataLoader(self._examples, batch_size=None, shuffle=True, collate_fn=self._copy)  # type: ignore[arg-type]
        alone = len(self._examples) % self._size == 1 < self._size < len(self._examples)  # BatchNorm cannot take one
        return DataLoader(
            self._examples,  # type: ignore[arg-type]
            batch_size=self._size,
            shuffle=True,
            collate_fn=self._collate,
            drop_last=alone,
        )

    def _looks(self, loader: Any) -> DataLoader[Any]:
        """The first batch twice, the same read again from the data set, and the second batch, where they exist."""
        self._draw(loader)
        size = self._size or 1
        parts = [self._examples[:size], self._examples[:size], self._again, self._examples[size : 2 * size]]
        looks = [self._join(part) for part in parts if len(part) == size]
        if self._again:
            self.random_transforms = not _same(looks[0], looks[2])
        return DataLoader(looks, batch_size=None, shuffle=False, collate_fn=_as_it_is)  # type: ignore[arg-type]

    def _join(self, examples: list[Any]) -> Any:
        if self._size is None:
            return self._copy(examples[0])
        assert self._collate is not None
        return self._collate(examples)

    def _copy(self, batch: Any) -> Any:
        """A batch for one step, which may change it in place."""
        return copy.deepcopy(batch if self._collate is None else self._collate(batch))

    def _draw(self, loader: Any) -> None:
        if self._examples:
            return
        if isinstance(loader, Mapping | list | tuple | CombinedLoader) or not isinstance(loader, Iterable):
            raise TypeError(
                f"`data` must give one train loader, got {type(loader).__name__}. Give one DataLoader, or a DataModule "
                "with one."
            )
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            self._read(loader)
        else:
            self._examples = list(islice(iter(loader), self._batches))
            self.notes.append(f"The first {len(self._examples)} batches of the stream, in another order each epoch.")
        if not self._examples or (self.indices and self._size is not None and len(self._examples) < 2):
            raise ValueError(
                f"`data` must give at least 2 training examples, got {len(self._examples)}. Give a larger training set."
            )

    def _read(self, loader: DataLoader[Any]) -> None:
        self._collate = loader.collate_fn
        if loader.batch_sampler is None:  # the data set gives batches, or the sampler lists of indices
            drawn: list[Any] = list(islice(iter(loader.sampler), self._batches))
            self._examples = [loader.dataset[index] for index in drawn]
            self._again = [loader.dataset[drawn[0]]] if drawn else []
            return
        batches = [list(batch) for batch in islice(iter(loader.batch_sampler), self._batches)]
        indices = list(dict.fromkeys(index for batch in batches for index in batch))
        examples = _get(loader, indices)
        if isinstance(examples, Mapping) or len(examples) != len(indices):  # `__getitems__` gives one whole batch
            self._examples = [_get(loader, batch) for batch in batches]
            self._again = [_get(loader, batches[0])]
            return
        self.indices, self._examples = indices, list(examples)
        self._size = len(batches[0]) if batches else 1
        self._size = min(self._size, max(1, len(self._examples)))
        self._again = list(_get(loader, self.indices[: self._size]))
        if len(batches) < self._batches:
            self.notes.append(f"The training set has {len(self._examples)} examples, and all were taken.")


class _Served:
    """A ``train_dataloader`` that makes another loader of the own one. It is no function: see ``SpiedStep``."""

    def __init__(self, own: Callable[[], Any], make: Callable[[Any], Any]) -> None:
        functools.update_wrapper(self, own)
        self._own, self._make = own, make

    def __call__(self) -> Any:
        """Make the loader."""
        return self._make(self._own())


def _get(loader: DataLoader[Any], indices: list[int]) -> Any:
    return Subset(loader.dataset, indices).__getitems__(list(range(len(indices))))


def _as_it_is(batch: Any) -> Any:
    return batch


def _same(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=False)
    return all(
        a.shape == b.shape and torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)
    )
