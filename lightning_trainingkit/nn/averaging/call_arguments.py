"""The arguments of a forward as rows of samples: cut, transform and join them."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

__all__ = ["Arguments", "CallArguments"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named arguments of a call."""


class CallArguments:
    """Arguments of a call, split into rows (one entry for each sample) and the rest (one value for the whole call).

    - **Images** are tensors ``(N, channels, height, width)`` of floats or bytes, anywhere in dicts, lists and tuples.
    - **Number of samples** ``N``: the first dimension of the first images. Without images, of the first tensor.
    - **Rows** are tensors with first dimension ``N``, lists of ``N`` numbers or strings, and tuples of ``N`` strings,
      which a default collate makes.

    The split is made once, for the whole batch: a part of the batch may have as many samples as an unrelated tensor has
    entries.

    Args:
        arguments: Positional and named arguments of the call.

    Raises:
        TypeError: If the arguments hold no tensor.
    """

    def __init__(self, arguments: Arguments) -> None:
        args, kwargs = arguments
        if len(args) == 1 and isinstance(args[0], Tensor) and args[0].ndim and not kwargs:  # a fast path for most calls
            self.size, self.device, self.rows = len(args[0]), args[0].device, [args[0]]
            self._template: Arguments | None = None
            return
        tensors: list[Tensor] = []
        apply_to_collection(arguments, Tensor, lambda tensor: tensors.append(tensor) if tensor.ndim else None)
        if not tensors:
            given = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
            raise TypeError(f"`target` must be called with a tensor of samples, got {given}. Name a submodule that is.")
        first = next(filter(_are_images, tensors), tensors[0])
        self.size = size = len(first)
        self.device = first.device
        rows: list[Any] = []

        def mark(value: Any) -> Any:
            if _one_for_each(value, size):
                rows.append(value)
                return _Mark(len(rows) - 1)
            if isinstance(value, Tensor):
                return value
            items = [apply_to_collection(item, (Tensor, list, tuple), mark) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)

        def template(value: Any) -> Any:
            return apply_to_collection(value, (Tensor, list, tuple), mark)

        self.rows = rows
        # One argument at a time: a call `module("a", "b", x=...)` is no tuple of strings for two samples.
        self._template = tuple(map(template, args)), {name: template(value) for name, value in kwargs.items()}
        if not kwargs and all(isinstance(value, _Mark) for value in self._template[0]):
            self._template = None

    @property
    def arguments(self) -> Arguments:
        """Positional and named arguments, to call the module with."""
        if self._template is None:  # all arguments are rows
            return tuple(self.rows), {}
        filled: Arguments = apply_to_collection(self._template, _Mark, self.rows.__getitem__)
        return filled

    @property
    def shapes(self) -> list[torch.Size]:
        """Shapes of the tensors among the rows."""
        return [row.shape for row in self.rows if isinstance(row, Tensor)]

    def copy(self) -> "CallArguments":
        """Return the same samples in new tensors."""
        return self._with([row.clone() if isinstance(row, Tensor) else row for row in self.rows], self.size)

    def equals(self, other: "CallArguments") -> bool:
        """Whether the tensors of both hold equal values. The call synchronises with the device."""
        pairs = zip(self.rows, other.rows, strict=True)
        return all(torch.equal(one, two) for one, two in pairs if isinstance(one, Tensor))

    def restore(self, kept: "CallArguments") -> None:
        """Write the values of an earlier copy back into the tensors."""
        with torch.no_grad():
            for row, other in zip(self.rows, kept.rows, strict=True):
                if isinstance(row, Tensor):
                    row.copy_(other)

    def take(self, rows: slice | Tensor) -> "CallArguments":
        """Return some of the samples, by a slice or by their indices ``(n,)``."""
        if isinstance(rows, slice):
            size = len(range(self.size)[rows])
            return self._with([row[rows] for row in self.rows], size)
        lists = not all(isinstance(row, Tensor) for row in self.rows)
        indices = rows.tolist() if lists else []
        taken = [row[rows] if isinstance(row, Tensor) else [row[index] for index in indices] for row in self.rows]
        return self._with(taken, len(rows))

    def view(self, view: Callable[[Tensor], Tensor]) -> "CallArguments":
        """Return the same samples with transformed images.

        Raises:
            ValueError: If the rows hold no images.
        """
        if not any(map(_are_images, self.rows)):
            shapes = ", ".join(str(tuple(shape)) for shape in self.shapes)
            raise ValueError(
                f"`target` must be called with images (N, channels, height, width), got tensors of {shapes}. Name a "
                "submodule that is."
            )
        return self._with([view(row) if _are_images(row) else row for row in self.rows], self.size)

    def refuse_channels_last(self) -> None:
        """Raise ValueError if the last dimension of images looks like their channels."""
        for row in filter(_are_images, self.rows):
            if row.shape[3] in (1, 3, 4) and min(row.shape[1:3]) > 4:
                raise ValueError(
                    f"`target` must be called with images (N, channels, height, width), got {tuple(row.shape)}, which "
                    "looks like (N, height, width, channels). Call it with x.permute(0, 3, 1, 2)."
                )

    def dense(self) -> "CallArguments":
        """Return the same samples with contiguous images. Crops are not, and a forward may call ``view`` on them."""
        if all(row.is_contiguous() for row in self.rows if _are_images(row)):
            return self
        return self._with([_dense(row) if _are_images(row) else row for row in self.rows], self.size)

    def join(self, others: Sequence["CallArguments"]) -> "CallArguments":
        """Join the samples of several batches, this batch first. The batches must differ in their rows alone."""
        if not others:
            return self
        columns = zip(self.rows, *(other.rows for other in others), strict=True)
        joined = [torch.cat(each) if isinstance(each[0], Tensor) else list(chain(*each)) for each in columns]
        return self._with(joined, self.size * (1 + len(others)))

    def _with(self, rows: list[Any], size: int) -> "CallArguments":
        batch = CallArguments.__new__(CallArguments)  # `copy` takes longer than a view of small images
        batch.rows, batch.size, batch.device, batch._template = rows, size, self.device, self._template
        return batch


class _Mark(int):
    """Placeholder for the row with this number."""


def _one_for_each(value: Any, size: int) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == size
    kinds = str | int | float if isinstance(value, list) else str  # a tuple of numbers may be a height and a width
    return len(value) == size and all(isinstance(item, kinds) for item in value)


def _dense(row: Tensor) -> Tensor:
    channels_last = row.shape[1] > 1 and row.stride(1) == 1
    return row.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _are_images(row: Any) -> bool:
    return isinstance(row, Tensor) and row.ndim == 4 and (row.is_floating_point() or row.dtype == torch.uint8)
