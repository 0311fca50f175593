"""Keep the loss of each optimizer step on its device, until it is read."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["StepLosses"]

_KEPT = 256


class StepLosses:
    """The losses of at most 256 steps. A step's loss is the mean of its batches, and of all ranks."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []  # of all batches
        self._batches = [0]  # of each step, the present one last

    @property
    def full(self) -> bool:
        """Whether ``read`` must come before the next step."""
        return len(self._batches) > _KEPT

    @property
    def pending(self) -> bool:
        """Whether the present step has a loss."""
        return self._batches[-1] > 0

    def add(self, loss: Tensor) -> None:
        """Add the loss of one batch to the present step.

        Args:
            loss: The loss without a graph. It is not copied, so nobody may change it.
        """
        self._losses.append(loss)
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
        if not steps:
            return []
        batches = torch.tensor(self._batches[:steps])
        finished = self._losses[: int(batches.sum())]
        values = torch.zeros(0)
        if finished:
            device = finished[0].device
            values = torch.stack([each.sum().to(device) for each in finished]).cpu()
        owners = torch.repeat_interleave(torch.arange(steps), batches)
        sums = torch.zeros(steps, dtype=torch.float64).index_add(0, owners, values.double())
        table = torch.stack([sums, batches.double()])
        if reduce is not None:
            reduce(table, "sum")
        self._losses, self._batches = self._losses[len(finished) :], self._batches[steps:]
        return (table[0] / table[1])[table[1] > 0].tolist()
