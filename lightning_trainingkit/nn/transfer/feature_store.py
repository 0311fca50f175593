"""Rows of tensors by key, in memory or in a file that is mapped into it."""

import tempfile
from collections.abc import Hashable, Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["FeatureStore", "Key", "StoreFullError", "row_bytes"]

Key = tuple[Hashable, ...]


class StoreFullError(Exception):
    """There is no room for more rows."""


class FeatureStore:
    """Rows of one or several tensors, found by key.

    Args:
        limit: Most bytes that all rows together may take.
        folder: Where to put the file; None keeps the rows on their device. The file has no name once it is open: it is
            gone when the process is, however that ends.
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit = limit
        self.folder = folder
        self.rows: dict[Key, int] = {}
        self._parts: list[Tensor] = []
        self._capacity = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bytes(self) -> int:
        """What the rows take, and those to come that there is room for."""
        return sum(part.numel() * part.element_size() for part in self._parts)

    def fits(self, features: Sequence[Tensor]) -> bool:
        """Whether these have the shape and dtype of the rows that are there."""
        pairs = zip(self._parts, features, strict=False)
        return not self._parts or all(one.shape[1:] == two.shape[1:] and one.dtype == two.dtype for one, two in pairs)

    def reserve(self, features: Sequence[Tensor], count: int) -> None:
        """Make room for so many rows of this shape at once, as far as the limit goes."""
        size = row_bytes(features)
        self._grow(features, min(count, self.limit // size if size else count))

    def add(self, keys: Sequence[Key], features: Sequence[Tensor]) -> None:
        """Keep a row of each tensor for each key; of equal keys the first counts.

        Args:
            keys: As many as the tensors have rows.
            features: Each ``(N, ...)``.

        Raises:
            StoreFullError: If the limit is reached.
        """
        new: dict[Key, int] = {}
        for row, key in enumerate(keys):
            if key not in self.rows:
                new.setdefault(key, row)
        if not new:
            return
        first, size = len(self.rows), row_bytes(features)
        wanted = first + len(new)
        if wanted > self._capacity:
            if wanted * size > self.limit:
                raise StoreFullError
            self._grow(features, min(max(wanted, 2 * self._capacity), self.limit // size if size else wanted))
        with torch.inference_mode(False), torch.no_grad():  # what inference makes can't be trained on
            chosen = torch.tensor(list(new.values()))
            for part, given in zip(self._parts, features, strict=True):
                part[first:wanted].copy_(given.detach()[chosen.to(given.device)])
        self.rows.update({key: first + number for number, key in enumerate(new)})

    def take(self, keys: Sequence[Key], device: torch.device) -> tuple[Tensor, ...]:
        """Rows of these keys, copied to a device: each tensor ``(len(keys), ...)``."""
        index = torch.tensor([self.rows[key] for key in keys])
        return tuple(part.index_select(0, index.to(part.device)).to(device) for part in self._parts)

    def clear(self) -> None:
        """Forget all rows, and give their memory back."""
        self.rows, self._parts, self._capacity = {}, [], 0

    def _grow(self, features: Sequence[Tensor], capacity: int) -> None:
        if capacity <= self._capacity:
            return
        with torch.inference_mode(False), torch.no_grad():
            parts = [self._allocate(each, capacity) for each in features]
            for new, old in zip(parts, self._parts, strict=False):
                new[: len(old)].copy_(old)
        self._parts, self._capacity = parts, capacity

    def _allocate(self, like: Tensor, capacity: int) -> Tensor:
        shape = (capacity, *like.shape[1:])
        if self.folder is None:
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="features-", suffix=".tmp") as file:
            count = max(1, torch.Size(shape).numel())
            return torch.from_file(file.name, shared=True, size=count, dtype=like.dtype)[
                : torch.Size(shape).numel()
            ].view(shape)


def row_bytes(features: Sequence[Tensor]) -> int:
    """Bytes of one row of all tensors together."""
    return sum(each[:1].numel() * each.element_size() for each in features)
