"""Keep the loss of each optimizer step on its device, until it is read."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["StepLosses"]

_KEPT = 256


class StepLosses:
    """The losses of at most 256 steps. A step's loss is the mean of its batches, and of all ranks."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._batches = [0]

    @property
    def full(self) -> bool:
        """Whether ``read`` must come before the next loss."""
        return len(self._batches) > _KEPT

    @property
    def pending(self) -> bool:
        """Whether the present step has a loss."""
        return self._batches[-1] > 0

    def add(self, loss: Tensor) -> None:
        """Add the loss of one batch to the present step."""
        loss = loss.detach()
        if self._sums is None:
            self._sums = torch.zeros(_KEPT, device=loss.device)
        slot = self._sums[len(self._batches) - 1]
        value = loss if loss.dim() == 0 else loss.sum()
        if self._batches[-1]:
            slot += value.to(slot)
        else:
            slot.copy_(value)
        self._batches[-1] += 1

    def end_step(self) -> None:
        """Begin the next step. A step may have no loss."""
        self._batches.append(0)

    def read(self, reduce: Callable[[Tensor, str], None] | None) -> list[float]:
        """Return the losses of the finished steps that have one, and forget them. Waits for the device.

        Args:
            reduce: ``reduce(tensor, "sum")`` sums a tensor over ranks in place. All ranks must call then.
        """
        steps = len(self._batches) - 1
        if not steps or (self._sums is None and reduce is None):
            return []
        batches = torch.tensor(self._batches[:steps], dtype=torch.float64)
        sums = torch.zeros(steps) if self._sums is None else self._sums[:steps]
        sums = torch.where(batches > 0, sums.cpu().double(), 0.0)  # a slot without a loss has an old one
        table = torch.stack([sums, batches])
        if reduce is not None:
            reduce(table, "sum")
        if self._sums is not None and self._batches[-1]:  # batches of a step that has not ended
            self._sums[0] = self._sums[steps].clone()
        self._batches = self._batches[steps:]
        return (table[0] / table[1])[table[1] > 0].tolist()
