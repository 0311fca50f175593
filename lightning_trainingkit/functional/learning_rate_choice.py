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
    "drop_of_sweep",
    "good_trials",
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
_GOOD = 0.9  # of the best drop: a rate that keeps it is as good
_STABLE = 0.75  # of the best drop: a rate that keeps less of it is not stable


@dataclass(frozen=True)
class RateTrial:
    """One short training at a constant learning rate. All trials saw the same batches from the same start.

    Args:
        rate: The learning rate.
        losses: The loss of each iteration.
        start: Loss of the untrained module.
        finite: Whether all losses were finite.
        planned: Iterations that the trial was to have. It has fewer if it lost early or broke.
        start_error: Standard error of ``start``.

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
    start_error: float = 0.0

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
        return (
            _Z * math.hypot(_standard_error(self.end), self.start_error)
            if self.finite and len(self.losses) > _BLOCK
            else math.inf
        )

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


def candidates_from_sweep(
    curve: Sequence[tuple[float, float]], start: float, start_error: float, count: int = 5
) -> list[float]:
    """Narrow a range test to a few candidates: the rate of the lowest loss, and smaller ones.

    Args:
        curve: Learning rate and loss of each iteration. The rate grows until the loss is lost or the range ends.
        start: Loss of the untrained module.
        start_error: Standard error of ``start``.
        count: Number of candidates.

    Returns:
        The candidates, the largest first, each a factor of ``sqrt(10)`` below the last one. If the loss never fell: the
        last rate of the test, and each a factor of 10 below the last one.
    """
    # A mean of eleven losses has about the error of the start. The lowest of many means is low by chance.
    fell = drop_of_sweep(curve, start) > 3 * math.sqrt(2) * start_error
    top, ratio = (curve[-1][0], 10.0)
    if fell:
        top, ratio = curve[int(np.argmin(moving_average(_finite_part(curve))))][0], math.sqrt(10)
    return [_rounded(top / ratio**step) for step in range(count)]


def drop_of_sweep(curve: Sequence[tuple[float, float]], start: float) -> float:
    """Return how far the moving average of the loss fell in a range test.

    Args:
        curve: Learning rate and loss of each iteration. The rate grows.
        start: Loss of the untrained module.
    """
    losses = _finite_part(curve)
    return float(start - moving_average(losses).min()) if len(losses) else 0.0


def loses(trial: RateTrial, best: RateTrial) -> bool:
    """Whether an unfinished trial is so far behind another one that it may stop.

    Args:
        trial: The unfinished trial.
        best: A trial that has as many iterations or more.
    """
    behind, error = _behind(trial, best, len(trial.losses))
    return behind > max(2 * _Z * error, 0.1 * abs(best.drop))


def good_trials(trials: Iterable[RateTrial]) -> list[RateTrial]:
    """Return the trials that are about as good as the best one, the smallest rate first.

    Their drop is at least 90 % of the best one, or not significantly below it. The difference of two trials is taken
    loss by loss, since both saw the same batches. A wild trial, whose losses say nothing significant, is not stable.

    Args:
        trials: The trials. Those that stopped early or whose loss did not fall significantly do not count.
    """
    whole = [each for each in trials if each.whole and significant_drop(each)]
    best = max(whole, key=lambda each: each.drop, default=None)
    if best is None:
        return []
    found = []
    for each in sorted(whole, key=lambda each: each.rate):
        behind, error = _behind(each, best, each.planned)
        if each.drop >= _GOOD * best.drop or (is_stable(each, best) and behind <= _Z * error):
            found.append(each)
    return found


def is_stable(trial: RateTrial, best: RateTrial) -> bool:
    """Whether a finished trial kept most of the best drop, with finite losses."""
    return trial.whole and trial.drop >= _STABLE * best.drop


def significant_drop(trial: RateTrial) -> bool:
    """Whether the loss fell by more than chance can explain, where the best of several trials is looked at."""
    return trial.drop > 1.5 * trial.margin  # three standard errors


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


def choose_rate(trials: Sequence[RateTrial]) -> float | None:
    """Choose a learning rate: the middle between the smallest good rate and the best one, if its double is stable.

    The best rate after few iterations is too high for a longer training, and may be near the cliff. The middle is that
    of the logarithms. If its double is not stable, the choice is half of the largest stable rate.

    Args:
        trials: All trials.

    Returns:
        The rate. None if no trial lowered the loss significantly.
    """
    good = good_trials(trials)
    if not good:
        return None
    best = max(good, key=lambda each: each.drop)
    middle = math.sqrt(good[0].rate * best.rate)
    if double_is_stable(middle, trials) is not False:
        return _rounded(middle)
    return _rounded(max(each.rate for each in trials if is_stable(each, best)) / 2)


def next_refinement(trials: Sequence[RateTrial]) -> float | None:
    """Return the rate of the trial that the choice still needs, or None if the choice is settled.

    It is twice the chosen rate, if no trial tells whether that is stable. Then it is half of the smallest good rate.

    Args:
        trials: All trials up to now.
    """
    chosen = choose_rate(trials)
    if chosen is None:
        return None
    if double_is_stable(chosen, trials) is None:
        return _rounded(2 * chosen)
    half = good_trials(trials)[0].rate / 2
    return None if any(0.7 * half < each.rate < 1.4 * half for each in trials) else _rounded(half)


def _finite_part(curve: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """The losses before the first one that is not finite."""
    losses = np.asarray([loss for _, loss in curve], dtype=float)
    finite = np.isfinite(losses)
    return losses if finite.all() else losses[: int(np.argmin(finite))]


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
