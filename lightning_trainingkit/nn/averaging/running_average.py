"""The running average of a batch of samples over passes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_trainingkit.functional.averaging import finish, log_sum, running_average, settled
from lightning_trainingkit.nn.averaging.call_arguments import CallArguments

__all__ = ["RunningAverage", "check_classes"]

_SIZES = 32


class RunningAverage:
    """Sums over the passes made so far, for a batch whose samples can leave early.

    Args:
        batch: The samples.
        average: ``probabilities``, ``logits``, ``geometric`` or ``votes``.
        remaining: Sum of the weights of all passes.
        keep_entropy: Also sum the entropy of each pass.
    """

    def __init__(self, batch: CallArguments, average: str, remaining: float, keep_entropy: bool) -> None:
        self.batch, self.average, self.remaining, self.keep_entropy = batch, average, remaining, keep_entropy
        self.size = batch.size
        self.entropy: Tensor | None = None
        """Mean entropy in nats of the passes, shape ``(N,)``."""
        self._total: Tensor | None = None
        self._left: Tensor | None = None  # sums of all samples at the last exit; `_all` updates the remaining samples
        self._rows: Tensor | None = None  # indices of the remaining samples among all samples

    @property
    def stopped(self) -> bool:
        """Whether all samples have left."""
        return self._rows is not None and not self.batch.size

    @property
    def may_settle(self) -> bool:
        """Whether samples may leave. A leader's lead is at most the weight added, and must exceed the weight left."""
        return self.settles_below(self.remaining)

    @staticmethod
    def settles_below(remaining: float) -> bool:
        """Whether samples may leave when the weight ``remaining`` is left."""
        return remaining < 0.5

    def add(self, log_probabilities: Tensor, weight: float, name: str) -> None:
        """Add a pass, ``(N, C)``, of the remaining samples.

        Raises:
            ValueError: If its number of classes differs from the earlier passes'.
        """
        if self._total is not None:
            check_classes(log_probabilities, self._total, name)
        self._total = running_average(self._total, log_probabilities, weight, self.average)
        self.remaining -= weight
        if self.keep_entropy:
            spread = torch.special.entr(log_probabilities.exp()).sum(dim=1) * weight
            self.entropy = spread if self.entropy is None else self.entropy + spread

    def add_all(self, log_probabilities: Tensor, weights: Sequence[float], name: str) -> None:
        """Add several passes, ``(K, N, C)``. Probabilities with equal weights are added at once."""
        if self.average == "probabilities" and not self.keep_entropy and min(weights) == max(weights):
            self.add(log_sum(log_probabilities), weights[0], name)
            self.remaining -= sum(weights[1:])
            return
        for each, weight in zip(log_probabilities, weights, strict=True):
            self.add(each, weight, name)

    def leave_out_settled(self, passes: int) -> None:
        """Let samples leave if no remaining pass can change their argmax.

        Args:
            passes: Number of all passes, made or left.
        """
        if self._total is None or not self.remaining > 1e-9 or not self.may_settle:
            return
        done = settled(self._total, self.remaining, passes, self.average)
        stay = (~done).nonzero().flatten()  # synchronises with the device
        more = -len(stay) % max(1, -(-self.size // _SIZES))
        if len(stay) + more >= self.batch.size:
            return
        if more:  # keep some settled samples: libraries prepare for each new batch size, so allow few sizes
            stay = torch.cat([stay, done.nonzero().flatten()[:more]])
        self._left = self._all()
        self._rows = stay if self._rows is None else self._rows[stay]
        self.batch, self._total = self.batch.take(stay), self._total[stay]

    def finish(self) -> Tensor:
        """Return the log-probabilities ``(N, C)`` of all samples, in the batch's order, from the passes made so far."""
        return finish(self._all(), self.average)

    def _all(self) -> Tensor:
        """Sums of all samples, including the samples that have left."""
        assert self._total is not None  # the weights sum to 1
        if self._left is None or self._rows is None:
            return self._total
        return self._left.index_copy(0, self._rows, self._total)


def check_classes(found: Tensor, before: Tensor, name: str) -> None:
    """Raise ValueError if a pass, ``(N, C)``, has another number of classes than the passes before."""
    if found.shape != before.shape:
        raise ValueError(
            f"`members` must have the same classes, got {found.shape[1]} from {name} and {before.shape[1]} from the "
            "members before. Leave it out."
        )
