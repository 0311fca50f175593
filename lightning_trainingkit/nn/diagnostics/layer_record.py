"""What one layer put out in a window, in buffers of a fixed size on its device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_trainingkit.functional import statistics
from lightning_trainingkit.nn.diagnostics.fixed_sample import FixedSample
from lightning_trainingkit.nn.diagnostics.observed_layers import ObservedLayer

__all__ = ["NEVER", "PLACES", "LayerRecord", "Place"]

PLACES = 4
"""Calls of a layer within one forward of its parent that are told apart. Further calls count as the last one."""
NEVER = -(10**9)
"""Window in which a unit was not zero, for a unit that always was."""


@dataclass
class Place:
    """Buffers for one call of a layer within its parent's forward.

    Args:
        alive_in: Number of the last window in which each unit was not zero, shape ``(units,)``.
        positions: Count, sum and sum of squares over images, of each sampled position, shape ``(3, positions)``.
    """

    alive_in: Tensor
    positions: Tensor


class LayerRecord:
    """Sums, extremes, a histogram, and whether each unit was ever alive.

    Nothing here waits for the device. Numbers that the host knows are counted by the host.

    Args:
        layer: The layer.
        bins: Number of bins of the histogram.
        sample: Elements of one call in the sample.
        device: Device of the buffers. The first output may move them to its own.
    """

    def __init__(self, layer: ObservedLayer, bins: int, sample: int, device: torch.device) -> None:
        self.layer = layer
        self.bins = bins
        self.window = 0
        self.place: int | None = None
        self._sample = FixedSample(sample)
        self._make(device)

    def _make(self, device: torch.device) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.host = [0, 0, 0, 0]  # calls, images, elements, sampled elements
        self.sums = self.zeros(4)  # total, squares, saturated, positive
        self.extremes = self.zeros(2)
        self.range = self.zeros(2)
        self.counts = self.zeros(self.bins, dtype=torch.long)
        self.places: list[Place] = []
        self._none = torch.tensor([torch.inf, -torch.inf], dtype=self.dtype).to(device)
        self._has_range = False
        self.extremes.copy_(self._none)
        self.range.copy_(self._none)

    def zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A buffer of zeros on the device."""
        return torch.zeros(shape, dtype=dtype or self.dtype, device=self.device)

    def enter(self, value: Tensor) -> None:
        """Begin a forward of the parent: the next call is its first."""
        self.place = 0

    def leave(self, value: Tensor) -> None:
        """End a forward of the parent."""
        self.place = None

    def record(self, y: Tensor) -> None:
        """Add one output."""
        if self.device != y.device:
            self._make(y.device)
        y = _images_first(y if self.layer.activation is None else self.layer.activation(y), self.layer.batch_dim)
        largest, smallest = _extremes(y, self._unit_dim(y))
        place = self._next_place(len(largest), self._sample.positions(y))
        place.alive_in[: len(largest)].masked_fill_((largest != 0) | (smallest != 0), self.window)
        self._add_extremes(smallest.min().to(self.dtype), largest.max().to(self.dtype))

        sample = self._sample.take(y, place.positions.shape[1]).to(self.dtype)
        place.positions[0, : sample.shape[1]] += len(sample)
        place.positions[1, : sample.shape[1]] += sample.sum(0)
        place.positions[2, : sample.shape[1]] += sample.square().sum(0)
        kind, wide = self.layer.saturation, torch.promote_types(y.dtype, torch.float32)
        squares = torch.linalg.vector_norm(y, dtype=wide).to(self.dtype).square()
        saturated = statistics.saturated(kind, sample, *self.layer.bounds).sum() if kind else self.sums[2] * 0
        parts = [y.sum(dtype=wide), squares, saturated, (sample > 0).sum()]
        self.sums += torch.stack([part.to(self.dtype) for part in parts])
        self.counts += statistics.histogram(sample, self.bins, *statistics.histogram_range(*self.range))
        added = 1, len(y), y.numel(), sample.numel()
        self.host = [old + new for old, new in zip(self.host, added, strict=True)]

    def _unit_dim(self, y: Tensor) -> int:
        """Dimension of the units. One activation module may follow convolutions and linear layers alike."""
        if y.dim() > 2:
            second, last = y.shape[1] in self.layer.second, y.shape[-1] in self.layer.last
            if second != last:
                return 1 if second else -1
        return self.layer.unit_dim or (1 if y.dim() > 3 else -1)

    def reset(self) -> None:
        """Begin a window. The histogram takes the range of the window that ends."""
        self.host = [0, 0, 0, 0]
        self.window += 1
        self.place = None
        self.range.copy_(torch.where(self.extremes.isfinite().all(), self.extremes, self.range))
        for buffer in (self.sums, self.counts, *(place.positions for place in self.places)):
            buffer.zero_()
        self.extremes.copy_(self._none)

    def place_at(self, number: int, units: int, positions: int) -> Place:
        """Buffers of one call, made or enlarged to this size."""
        while len(self.places) <= number:
            self.places.append(Place(self.zeros(0, dtype=torch.long), self.zeros(3, 0)))
        place = self.places[number]
        if (missing := units - len(place.alive_in)) > 0:
            place.alive_in = torch.cat([place.alive_in, self.zeros(missing, dtype=torch.long) + NEVER])
        if (missing := positions - place.positions.shape[1]) > 0:
            place.positions = torch.cat([place.positions, self.zeros(3, missing)], 1)
        return place

    def _next_place(self, units: int, positions: int) -> Place:
        number = min(self.place or 0, PLACES - 1)
        if self.place is not None:
            self.place += 1
        known = number < len(self.places) and self.places[number].positions.shape[1]
        return self.place_at(number, units, known or positions)

    def _add_extremes(self, low: Tensor, high: Tensor) -> None:
        if not self._has_range:
            self._has_range = True
            self.range.copy_(torch.stack([low, high]))
        self.extremes.copy_(torch.stack([torch.minimum(self.extremes[0], low), torch.maximum(self.extremes[1], high)]))


def _images_first(y: Tensor, batch_dim: int) -> Tensor:
    if y.dim() < 2:
        return y.reshape(-1, 1)
    return y.movedim(batch_dim, 0) if y.dim() > 2 else y


def _extremes(y: Tensor, unit_dim: int) -> tuple[Tensor, Tensor]:
    """Largest and smallest value of each unit."""
    rest = [dim for dim in range(y.dim()) if dim != unit_dim % y.dim()]
    if y.dim() > 2 and y.is_contiguous() and unit_dim == 1:
        # One after the other: over dimensions on both sides of the units, the CPU takes up to 20 times as long.
        if y[0, 0].numel() >= 64:
            rest = rest[1:]
            return y.amax(rest).amax(0), y.amin(rest).amin(0)
        rest = [dim - 1 for dim in rest[1:]]
        return y.amax(0).amax(rest), y.amin(0).amin(rest)
    return y.amax(rest), y.amin(rest)
