"""Choose a learning rate from short trials: which rates to try, which trials lose, which rate to take."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RateTrial",
    "blown_up",
    "candidates_from_sweep",
    "choose_rate",
    "double_is_stable",
    "equivalent",
    "is_stable",
    "loses",
    "moving_average",
    "next_refinement",
    "significant_drop",
    "sweep_rates",
]

_BLOCK = 5  # neighbouring losses are correlated: an interval is made from the means of blocks
_TAIL = 0.3  # of a trial: its end
_Z = 2.0  # standard errors of a difference that counts
_KEPT = 0.75  # of the best drop: a rate that keeps less of it is not stable
_RATIO = math.sqrt(10)


@dataclass(frozen=True)
class RateTrial:
    """One short training at a constant learning rate. All trials saw the same batches from the same start.

    Args:
        rate: The learning rate.
        losses: The loss of each iteration.
        start: Loss of the untrained module.
        finite: Whether all losses were finite.
        planned: Iterations that the trial was to have. It has fewer if it lost early or broke.

    Example:
        >>> trial = RateTrial(0.1, tuple(2.0 - 0.01 * step for step in range(100)), 2.0, True, 100)
        >>> round(trial.drop, 3)
        0.845
    """

    rate: float
    losses: tuple[float, ...]
    start: float
    finite: bool
    planned: int

    @cached_property
    def end(self) -> NDArray[np.float64]:
        """The losses of the last part, the newest last."""
        return np.asarray(self.losses[-max(_BLOCK, round(_TAIL * len(self.losses))) :], dtype=float)

    @property
    def drop(self) -> float:
        """Loss at the start minus the mean loss at the end; minus infinity if a loss was not finite."""
        return self.start - float(self.end.mean()) if self.finite and self.losses else -math.inf

    @property
    def margin(self) -> float:
        """Half of the interval of the drop, at two standard errors."""
        return _Z * _standard_error(self.end) if self.finite and len(self.losses) > _BLOCK else math.inf

    @property
    def whole(self) -> bool:
        """Whether the trial had all iterations that were planned, with finite losses."""
        return self.finite and len(self.losses) >= self.planned


def sweep_rates(lowest: float, highest: float, iterations: int) -> list[float]:
    """Return rates that grow by the same factor from each iteration to the next.

    Example:
        >>> [round(rate, 4) for rate in sweep_rates(0.001, 0.1, 3)]
        [0.001, 0.01, 0.1]
    """
    return np.geomspace(lowest, highest, iterations).tolist()  # type: ignore[no-any-return]


def blown_up(losses: Sequence[float], start: float) -> bool:
    """Whether the latest losses are not finite, or so far above the start that the training is lost.

    Args:
        losses: The losses up to now.
        start: Loss of the untrained module.
    """
    latest = np.asarray(losses[-_BLOCK:], dtype=float)
    if not np.isfinite(latest).all():
        return True
    gained = max(0.0, start - min(losses, default=start))
    return bool(np.median(latest) > start + 4 * max(gained, abs(start)))


def moving_average(losses: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each loss and its neighbours: five on either side, fewer at the ends.

    Example:
        >>> moving_average([1.0, 2.0, 3.0]).tolist()
        [2.0, 2.0, 2.0]
    """
    values, kernel = np.asarray(losses, dtype=float), np.ones(2 * _BLOCK + 1)
    reach = slice(_BLOCK, _BLOCK + len(values))
    return np.convolve(values, kernel)[reach] / np.convolve(np.ones_like(values), kernel)[reach]


def candidates_from_sweep(curve: Sequence[tuple[float, float]], count: int = 5) -> list[float]:
    """Narrow a range test to a few candidates: the rate of the lowest loss, and smaller ones.

    Args:
        curve: Learning rate and loss of each iteration. The rate grows.
        count: Number of candidates, each a factor of ``sqrt(10)`` below the last one.

    Returns:
        The candidates, the largest first. The whole range in powers of ten if the loss never fell.
    """
    finite = np.asarray([loss for _, loss in curve], dtype=float)
    finite = finite[: int(np.argmin(np.isfinite(finite)))] if not np.isfinite(finite).all() else finite
    start = finite[: 2 * _BLOCK]
    smooth = moving_average(finite)
    if len(finite) <= 4 * _BLOCK or smooth.min() > start.mean() - _Z * _standard_error(start):
        return [_rounded(10.0**-power) for power in range(count)]
    top = curve[int(np.argmin(smooth))][0]
    return [_rounded(top / _RATIO**step) for step in range(count)]


def loses(trial: RateTrial, best: RateTrial) -> bool:
    """Whether an unfinished trial is so far behind another one that it may stop.

    Args:
        trial: The unfinished trial.
        best: A trial that has as many iterations or more.
    """
    behind, error = _behind(trial, best, len(trial.losses))
    return behind > max(2 * _Z * error, 0.1 * abs(best.drop))


def equivalent(trials: Sequence[RateTrial]) -> list[RateTrial]:
    """Return the finished trials whose drop is not significantly below that of the best one.

    The difference of two trials is taken loss by loss, since both saw the same batches.
    """
    whole = [each for each in trials if each.whole]
    if not whole:
        return []
    best = max(whole, key=lambda each: each.drop)
    found = []
    for each in whole:
        behind, error = _behind(each, best, each.planned)
        if behind <= _Z * error:
            found.append(each)
    return found


def is_stable(trial: RateTrial, best: RateTrial) -> bool:
    """Whether a finished trial kept most of the best drop, with finite losses."""
    return trial.whole and trial.drop >= _KEPT * best.drop


def significant_drop(trial: RateTrial) -> bool:
    """Whether the loss fell by more than its interval."""
    return trial.drop > trial.margin


def double_is_stable(rate: float, trials: Iterable[RateTrial]) -> bool | None:
    """Whether trials show that twice a rate is stable. None if no trial tells.

    A stable trial at a larger rate shows it as well, and an unstable one at twice the rate or below shows the contrary.
    """
    trials = list(trials)
    best = max(trials, key=lambda each: each.drop)
    if any(is_stable(each, best) for each in trials if each.rate >= 1.9 * rate):
        return True
    if any(not is_stable(each, best) for each in trials if rate < each.rate <= 2.1 * rate):
        return False
    return None


def next_refinement(trials: Sequence[RateTrial]) -> float | None:
    """Return the rate of the trial that the choice still needs, or None if the choice is settled.

    Args:
        trials: All trials up to now.
    """
    good = equivalent(trials)
    for each in sorted(good, key=lambda each: -each.rate):
        shown = double_is_stable(each.rate, trials)
        if shown:
            return None
        if shown is None:
            return 2 * each.rate
    if not good:
        return None
    half = min(each.rate for each in good) / 2
    return None if any(0.9 * half < each.rate < 1.1 * half for each in trials) else half


def choose_rate(trials: Sequence[RateTrial]) -> RateTrial | None:
    """Choose, among the trials that are not significantly worse than the best, the largest with a stable double.

    Args:
        trials: All trials.

    Returns:
        The chosen trial. If no such trial has a stable double: the best trial below them that has one, or the smallest
        of them. None if no trial lowered the loss significantly.
    """
    good = [each for each in equivalent(trials) if significant_drop(each)]
    if not good:
        return None
    safe = [each for each in good if double_is_stable(each.rate, trials)]
    if safe:
        return max(safe, key=lambda each: each.rate)
    lowest = min(good, key=lambda each: each.rate)
    lower = [each for each in trials if each.rate < lowest.rate and each.whole and double_is_stable(each.rate, trials)]
    return max(lower, key=lambda each: each.drop, default=lowest)


def _behind(trial: RateTrial, other: RateTrial, iterations: int) -> tuple[float, float]:
    """How far the loss of a trial is above that of another at the same iterations, with the standard error."""
    begin = iterations - max(_BLOCK, round(_TAIL * iterations))
    ours, theirs = (np.asarray(each.losses[begin:iterations], dtype=float) for each in (trial, other))
    shared = min(len(ours), len(theirs))
    if not shared or not trial.finite:
        return math.inf, 0.0
    difference = ours[:shared] - theirs[:shared]
    return float(difference.mean()), _standard_error(difference)


def _standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of a mean, from the means of blocks."""
    blocks = [part.mean() for part in np.array_split(values, max(2, len(values) // _BLOCK)) if len(part)]
    return float(np.std(blocks, ddof=1) / math.sqrt(len(blocks))) if len(blocks) > 1 else math.inf


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
