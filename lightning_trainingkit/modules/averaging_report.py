"""The gain of averaging, pass by pass."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.averaging import AVERAGES, check_weights, finish, running_average

__all__ = ["AveragingReport"]

_BINS = 15


class AveragingReport(Metric):
    r"""Accuracy, log-likelihood and calibration of the average of the first 1, 2, ... K passes, and of each pass alone.

    A pass is the output of one ensemble member, one view or one dropout mask for a batch. The calibration error is
    :math:`\sum_b \frac{n_b}{N} |acc_b - conf_b|` over 15 equal bins of the largest probability, as in torchmetrics'
    ``MulticlassCalibrationError``; a probability of exactly 1 has a separate bin. Only sums are kept, so memory does
    not grow with the data. ``compute`` sums them over ranks.

    ``self.log`` of Lightning takes scalars only: call ``compute`` or ``rows`` yourself, on all ranks.

    Args:
        num_classes: Number of classes ``C``.
        passes: Number of passes ``K``.
        average: ``probabilities``, ``logits``, ``geometric`` or ``votes``, see ``functional.averaging``.
        weights: Weights of the passes, K numbers with sum 1, the first one positive. The average of the first k passes
            divides their weights by their sum. Equal weights by default.

    Raises:
        ValueError: If an argument is out of range, or a batch has another shape.

    Example:
        >>> import torch
        >>> report = AveragingReport(num_classes=2, passes=2)
        >>> passes = torch.tensor([[[0.9, 0.1], [0.6, 0.4]], [[0.5, 0.5], [0.2, 0.8]]]).log()
        >>> report.update(passes, torch.tensor([0, 1]))
        >>> report.compute()["acc"], report.compute()["disagreement"]
        (tensor([0.5000, 1.0000]), tensor(0.5000))

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599.
    """

    full_state_update = False
    is_differentiable = False
    nll_sum: Tensor
    bin_count: Tensor
    bin_correct: Tensor
    bin_confidence: Tensor
    disagreeing: Tensor

    def __init__(
        self,
        num_classes: int,
        passes: int,
        *,
        average: str = "probabilities",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check.integer("num_classes", num_classes, "Count the classes from 1.", least=2)
        _check.integer("passes", passes, "1 reports a single pass.", least=1)
        _check.one_of("average", average, AVERAGES, "The default is 'probabilities'.")
        self.num_classes = num_classes
        self.passes = passes
        self.average = average
        self.weights = check_weights("weights", [1 / passes] * passes if weights is None else weights, passes)
        if self.weights[0] == 0:
            raise ValueError(f"`weights` must start with a positive one, got {self.weights}. Put that pass later.")
        # The first row holds the averages, the second the single passes.
        self.add_state("nll_sum", torch.zeros(2, passes), dist_reduce_fx="sum")
        self.add_state("bin_count", torch.zeros(2, passes, _BINS + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("bin_correct", torch.zeros(2, passes, _BINS + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("bin_confidence", torch.zeros(2, passes, _BINS + 1), dist_reduce_fx="sum")
        self.add_state("disagreeing", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, log_probabilities: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            log_probabilities: Log-probabilities, or logits, of each pass, shape ``(K, N, C)``.
            target: True classes in ``0 .. C - 1``, shape ``(N,)``.
        """
        shape = (self.passes, len(target), self.num_classes)
        if target.ndim != 1 or tuple(log_probabilities.shape) != shape:
            found = f"{tuple(log_probabilities.shape)} and {tuple(target.shape)}"
            raise ValueError(f"Shapes must be (K, N, C) = {shape} and (N,), got {found}. Stack one tensor per pass.")
        dtype = torch.promote_types(log_probabilities.dtype, torch.float32)
        total, so_far = None, 0.0
        confidences, leaders, losses = [], [], []
        for logits, weight in zip(log_probabilities, self.weights, strict=True):
            single = logits.log_softmax(dim=1, dtype=dtype)
            if weight:
                total = running_average(total, single, weight, self.average)
                so_far += weight
            assert total is not None  # the first weight is positive
            # The sum of probabilities is a logarithm, which `finish` normalises; the other sums become means here.
            mean = total if self.average == "probabilities" else total / so_far
            both = torch.stack((finish(mean, self.average), single))
            confidence, leader = both.max(dim=2)
            confidences.append(confidence.exp())
            leaders.append(leader)
            losses.append(-both.gather(2, target.long().expand(2, -1)[:, :, None])[:, :, 0].sum(dim=1))
        self.nll_sum += torch.stack(losses, dim=1)
        leader = torch.stack(leaders, dim=1)
        self._count(torch.stack(confidences, dim=1), (leader == target).long())
        votes = leader.new_zeros(len(target), self.num_classes)
        votes.scatter_add_(1, leader[1].T, torch.ones_like(leader[1].T))
        pairs = self.passes * (self.passes - 1) // 2
        self.disagreeing += len(target) * pairs - (votes * (votes - 1)).sum() // 2

    def compute(self) -> dict[str, Tensor]:
        """Return the scores over all batches of all ranks.

        Returns:
            - ``acc``, ``nll`` (mean, in nats) and ``ece`` (calibration error) of the average of the first 1, ..., K
              passes, shape ``(K,)``.
            - ``acc_single``, ``nll_single`` and ``ece_single`` of each pass alone, shape ``(K,)``.
            - ``disagreement``: share of samples on which two passes name different classes, the mean over all pairs of
              passes, shape ``()``. NaN for one pass.
        """
        samples = self.bin_count[0, 0].sum()
        # Equal to sum_b n_b / N |acc_b - conf_b|, without dividing by empty bins.
        gap = (self.bin_correct - self.bin_confidence).abs().sum(dim=2)
        of_all = {"acc": self.bin_correct.sum(dim=2) / samples, "nll": self.nll_sum / samples, "ece": gap / samples}
        averages = {name: rows[0] for name, rows in of_all.items()}
        singles = {f"{name}_single": rows[1] for name, rows in of_all.items()}
        pairs = self.passes * (self.passes - 1) // 2
        return averages | singles | {"disagreement": self.disagreeing / (samples * pairs)}

    def rows(self) -> list[dict[str, float]]:
        """Return ``compute``'s values without ``disagreement`` as one dict per number of passes, for a table.

        ``acc_single`` in the row of ``passes = k`` belongs to the k-th pass.
        """
        found = {name: values for name, values in self.compute().items() if name != "disagreement"}
        columns = {name: values.reshape(-1).tolist() for name, values in found.items()}
        each = zip(*columns.values(), strict=True)
        return [{"passes": k, **dict(zip(columns, values, strict=True))} for k, values in enumerate(each, start=1)]

    def _count(self, confidence: Tensor, correct: Tensor) -> None:
        """Sort samples into bins, both of shape ``(2, K, N)``."""
        edges = torch.linspace(0, 1, _BINS + 1, dtype=confidence.dtype, device=confidence.device)
        index = torch.bucketize(confidence, edges, right=True) - 1
        self.bin_count.scatter_add_(2, index, torch.ones_like(correct))
        self.bin_correct.scatter_add_(2, index, correct)
        self.bin_confidence.scatter_add_(2, index, confidence.to(self.bin_confidence.dtype))
