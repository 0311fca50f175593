"""Averages over passes of one or several models, one pass at a time, and an exact early exit for each sample."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from lightning_trainingkit.functional import _check

__all__ = [
    "AVERAGES",
    "EXACT_EARLY_EXIT",
    "average_passes",
    "check_weights",
    "finish",
    "log_softmax",
    "log_sum",
    "running_average",
    "settled",
]

AVERAGES = ("probabilities", "logits", "geometric", "votes")
EXACT_EARLY_EXIT = ("probabilities", "votes")

_VECTOR = 16  # floats, of AVX-512
_ROWS = 256  # for fewer rows the transposition takes longer


def log_softmax(x: Tensor) -> Tensor:
    """Return ``x.log_softmax(-1)``, on a CPU without torch's slow path for rows shorter than a vector."""
    short = x.device.type == "cpu" and x.shape[-1] < _VECTOR
    if not short or is_compiling() or x.numel() < _ROWS * x.shape[-1]:
        return x.log_softmax(-1)
    return x.transpose(-1, -2).log_softmax(-2).transpose(-1, -2)


def log_sum(log_probabilities: Tensor) -> Tensor:
    """Return ``log_probabilities.logsumexp(0)``, on a CPU with fewer operations if no sum is near 0."""
    if log_probabilities.device.type == "cpu" and log_probabilities.numel():
        sums = log_probabilities.exp().sum(0)
        if sums.amin().item() > 1e-30:  # False for NaN
            return sums.log()
    return log_probabilities.logsumexp(0)


def running_average(total: Tensor | None, log_probabilities: Tensor, weight: float, average: str) -> Tensor:
    r"""Add one pass to the running average over passes :math:`k` with weights :math:`w_k`.

    The kind of average decides how the class probabilities :math:`p_k` of the passes are summed:

    - ``probabilities``: :math:`\sum_k w_k p_k`, held as its logarithm, so that small probabilities don't become 0.
    - ``logits`` and ``geometric``: :math:`\sum_k w_k \log p_k`. Both are the same average. The logits of a sample are
      :math:`\log p_k` plus a number that all its classes share. Normalising removes the number, so averaged logits give
      the normalised geometric mean of the probabilities.
    - ``votes``: :math:`\sum_k w_k [c = \arg\max_j p_{kj}]`. Of classes with equal probability the first gets the vote.
      A pass of NaN votes NaN.

    Args:
        total: Result of this function for the pass before, None for the first pass.
        log_probabilities: Log-probabilities of this pass, shape ``(N, C)``.
        weight: Weight of this pass, positive. The weights of all passes sum to 1.
        average: ``probabilities``, ``logits``, ``geometric`` or ``votes``.

    Returns:
        The new total, shape ``(N, C)``, for ``finish`` and ``settled``.

    Raises:
        ValueError: If ``average`` is unknown.
    """
    if average == "probabilities":
        term = log_probabilities + math.log(weight)
        return term if total is None else torch.logaddexp(total, term)
    if average in ("logits", "geometric"):
        return log_probabilities * weight if total is None else total.add(log_probabilities, alpha=weight)
    _check.one_of("average", average, AVERAGES, "The default is 'probabilities'.")
    top, leader = log_probabilities.max(dim=1, keepdim=True)
    votes = torch.zeros_like(log_probabilities).scatter(1, leader, torch.where(top.isnan(), top, 1.0))
    return votes * weight if total is None else total.add(votes, alpha=weight)


def finish(total: Tensor, average: str) -> Tensor:
    """Turn a running average, over all passes or the first of them, into log-probabilities.

    A class without a vote gets the smallest normal probability, 1e-38 in float32, so that a cross-entropy stays finite.
    The first passes alone are an average too. Their ``total`` of ``probabilities`` is normalised here; any other
    ``total`` must first be divided by the sum of their weights.

    Args:
        total: Last result of ``running_average``, shape ``(N, C)``.
        average: The kind of average.

    Returns:
        Log-probabilities, shape ``(N, C)``; their exponentials sum to 1.
    """
    if average == "votes":
        total = total.clamp(min=torch.finfo(total.dtype).tiny).log()
    return log_softmax(total).contiguous()


def settled(total: Tensor, remaining: float, passes: int, average: str) -> Tensor:
    r"""Find the samples whose argmax no later pass can change.

    For probabilities and votes, a pass of weight :math:`w` adds at most :math:`w` to the sum of any class. It takes
    nothing from the leader. Let :math:`R` be the weight of all remaining passes. Let the leader :math:`a` have
    :math:`s_a > s_b + R` for each other class :math:`b`. Then the final sums are
    :math:`s_a' \ge s_a > s_b + R \ge s_b'`. So the full average of the same outputs has the same argmax.

    The sums are rounded, so the lead must be larger by a margin. Let :math:`\epsilon` be the distance of 1 to the next
    float.

    - **One rounding**: a sum :math:`s \le 1` that is held as :math:`\log s` moves by
      :math:`s |\log s| \epsilon / 2 \le 0.2 \epsilon`.
    - **One call** of ``exp`` or ``log1p`` moves it by :math:`\epsilon`.
    - **One pass** moves it by less than :math:`3 \epsilon` in all, also if several passes are summed first.
    - **All passes**: at most :math:`K` passes, for the leader and the runner-up, so far and until the end, come to less
      than :math:`12 K \epsilon`.

    The margin is :math:`16 K \epsilon`. The rest covers the roundings of the comparison and of ``finish``, where
    :math:`4 \epsilon` between two probabilities keep their logarithms apart. A tie never settles, and neither does NaN.

    Args:
        total: Running average of ``probabilities`` or ``votes``, shape ``(N, C)``.
        remaining: Sum :math:`R` of the weights of the remaining passes.
        passes: Number :math:`K` of all passes, done or remaining.
        average: The kind of average.

    Returns:
        Shape ``(N,)``, boolean.

    Raises:
        ValueError: If ``average`` is ``logits`` or ``geometric``, where one pass can remove any lead.

    Example:
        >>> import torch
        >>> log_probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
        >>> total = running_average(None, log_probabilities, 0.6, "probabilities")
        >>> settled(total, remaining=0.4, passes=2, average="probabilities")
        tensor([ True, False])
    """
    if average not in EXACT_EARLY_EXIT:
        raise ValueError(
            f"`average` must be {' or '.join(EXACT_EARLY_EXIT)} for an early exit, got {average!r}: one pass can take "
            "any lead away."
        )
    sums = total.exp() if average == "probabilities" else total
    first, second = sums.topk(2, dim=1).values.unbind(dim=1)
    return first - second > remaining + 16 * passes * torch.finfo(total.dtype).eps


def average_passes(
    log_probabilities: Tensor, weights: Tensor | Sequence[float] | None = None, average: str = "probabilities"
) -> Tensor:
    """Average the outputs of all passes at once.

    Args:
        log_probabilities: Log-probabilities, or logits, of each pass, shape ``(K, N, C)``.
        weights: Weights of the passes, ``K`` numbers, not negative, with sum 1. Equal weights by default.
        average: ``probabilities``, ``logits``, ``geometric`` or ``votes``, see ``running_average``.

    Returns:
        Log-probabilities, shape ``(N, C)``.

    Raises:
        ValueError: If ``average`` is unknown or the weights don't fit.

    Example:
        >>> import torch
        >>> passes = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]).log()
        >>> average_passes(passes).exp()
        tensor([[0.7000, 0.3000]])
    """
    passes = len(log_probabilities)
    given = check_weights("weights", [1 / passes for _ in range(passes)] if weights is None else weights, passes)
    total = None
    for each, weight in zip(log_softmax(log_probabilities), given, strict=True):
        if weight:
            total = running_average(total, each, weight, average)
    assert total is not None  # the weights sum to 1
    return finish(total, average)


def check_weights(name: str, given: Any, number: int | None, of: str = "pass") -> list[float]:
    """Return weights as floats: none negative, with sum 1.

    Args:
        name: Name of the argument, for errors.
        given: The weights that the user gave.
        number: How many weights there must be, None for any number.
        of: The thing that each weight belongs to, for errors.

    Raises:
        TypeError: If a weight is no number.
        ValueError: If the number of weights, a sign or the sum is wrong.
    """
    try:
        weights = [float(weight) for weight in given]
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"`{name}` must be numbers, got {given}. Leave them out for equal ones.") from None
    if number is not None and len(weights) != number:
        raise ValueError(f"`{name}` must be {number} numbers, one for each {of}, got {len(weights)}: {weights}.")
    total = sum(weights)
    if not all(weight >= 0 for weight in weights) or abs(total - 1) > 1e-5:
        hint = f"Divide them by {total:g}." if total > 0 and min(weights) >= 0 else "Leave them out for equal ones."
        raise ValueError(f"`{name}` must be positive or 0 and sum to 1, got {weights} with sum {total:g}. {hint}")
    return weights
