"""Choose a learning rate from short trials: which trials lose, which rate to try next, which one to take."""

import math
from collections.abc import Iterable, Sequence
from itertools import takewhile

from lightning_trainingkit.functional.rate_trial import RateTrial, rounded_rate

__all__ = ["choose_rate", "good_trials", "is_stable", "largest_stable", "loses", "next_refinement"]

_GOOD = 0.9  # of the best drop: a rate that keeps it is as good
_STABLE = 0.75  # of the best drop: a rate that keeps less of it is not stable


def loses(trial: RateTrial, best: RateTrial) -> bool:
    """Whether an unfinished trial is so far behind another one that it may stop.

    Args:
        trial: The unfinished trial.
        best: A trial that has as many iterations or more.
    """
    behind, error = trial.behind(best, len(trial.losses))
    return behind > max(4 * error, 0.1 * abs(best.drop))


def good_trials(trials: Iterable[RateTrial]) -> list[RateTrial]:
    """Return the trials that are about as good as the best one, the smallest rate first.

    Their drop is at least 90 % of the best one, or not significantly below it. The difference of two trials is taken
    loss by loss, since both saw the same batches. A wild trial, whose losses say nothing significant, is not stable.

    Args:
        trials: The trials. Those that stopped early or whose loss did not fall significantly do not count.
    """
    whole = [each for each in trials if each.whole and each.significant]
    best = max(whole, key=lambda each: each.drop, default=None)
    if best is None:
        return []
    found = []
    for each in sorted(whole, key=lambda each: each.rate):
        behind, error = each.behind(best, each.planned)
        if each.drop >= _GOOD * best.drop or (is_stable(each, best) and behind <= 2 * error):
            found.append(each)
    return found


def is_stable(trial: RateTrial, best: RateTrial) -> bool:
    """Whether a finished trial kept most of the best drop, with finite losses."""
    return trial.whole and trial.drop >= _STABLE * best.drop


def largest_stable(trials: Iterable[RateTrial]) -> float:
    """Return the largest rate up to which all trials from the best one on are stable.

    Args:
        trials: The trials. At least one lowered the loss significantly.
    """
    best = max(good_trials(trials), key=lambda each: each.drop)
    above = sorted((each for each in trials if each.rate >= best.rate), key=lambda each: each.rate)
    return max(each.rate for each in takewhile(lambda each: is_stable(each, best), above))


def choose_rate(trials: Sequence[RateTrial]) -> float | None:
    """Choose a learning rate: the middle between the smallest good rate and the best one, if its double is stable.

    The best rate after few iterations is too high for a longer training, and may be near the cliff. The middle is that
    of the logarithms. The choice is at most half of the largest stable rate.

    Args:
        trials: All trials.

    Returns:
        The rate. None if no trial lowered the loss significantly.
    """
    good = good_trials(trials)
    if not good:
        return None
    best = max(good, key=lambda each: each.drop)
    return rounded_rate(min(math.sqrt(good[0].rate * best.rate), largest_stable(trials) / 2))


def next_refinement(trials: Sequence[RateTrial]) -> float | None:
    """Return the rate of a trial that may change the choice: half of the smallest good rate, if none is near it.

    Args:
        trials: All trials up to now.
    """
    good = good_trials(trials)
    half = good[0].rate / 2 if good else math.nan
    near = any(0.7 * half < each.rate < 1.4 * half for each in trials)
    return rounded_rate(half) if good and not near else None
