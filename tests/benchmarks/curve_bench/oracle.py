"""What a training really needed, from test examples and continued trainings that the rules never see."""

import functools
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from .settings import Settings
from .tasks import TASKS
from .training import Curves, Training

__all__ = ["examine", "label"]

Facts = dict[str, float]

_LARGE, _SMALL = 0.20, 0.10
"""Share of the test loss by which a cure must lower it to count, and that a healthy training may leave."""


def examine(plant: str, training: Training) -> Facts:
    """Measure a finished training, and what more time and a lower rate would bring where that decides the label."""
    facts = seen(training.settings, training.curves) | {
        "reference": reference(training.settings.task),
        "chance": chance(training.settings.task),
    }
    if label(plant, facts) == "":
        facts |= _continued(training)
    return {name: min(value, 1e9) if math.isfinite(value) else 1e9 for name, value in facts.items()}


def seen(settings: Settings, curves: Curves) -> Facts:
    """Measure the training itself, also by the losses that it did not log."""
    test, fit = curves.test_loss[1:], curves.fit_loss[1:]
    initial, fit_initial = curves.test_loss[0], curves.fit_loss[0]
    if not all(map(math.isfinite, [*curves.train_loss, *test])):
        return {"finite": 0.0}
    gained = max(fit_initial - min(smooth(fit, 3)), initial - min(smooth(test, 3)), 0.05 * initial)
    logged = 1 if settings.logged == "steps" else curves.ends[0] + 1
    return {
        "finite": 1.0,
        "highest": max(smooth(curves.train_loss, 20)),
        "logged_first": fmean(curves.train_loss[:logged]),
        "initial": initial,
        "fit_initial": fit_initial,
        "end": last(test),
        "best": min(smooth(test, 3)),
        "falling": test[-1 - len(test) // 3] / last(test) - 1,
        "fit_end": last(fit),
        "fit_best": min(smooth(fit, 3)),
        "val_end": last(curves.val_loss),
        "logged_end": last(curves.train_loss),
        "started": _started(curves),
        "decayed": float(settings.schedule in ("cosine", "steps")),
        "val_rise": (last(curves.val_loss) - min(smooth(curves.val_loss, 3))) / max(jumps(curves.val_loss), 1e-9),
        "val_jumps": jumps(curves.val_loss) / gained,
        "test_jumps": jumps(test) / gained,
    }


def _continued(training: Training) -> Facts:
    """Losses after as many epochs more, and after some epochs at a tenth of the rate."""
    decayed, epochs = training.settings.schedule in ("cosine", "steps"), len(training.curves.ends)
    longer, lower = training.fork(), training.fork()
    longer.train_on(max(5, epochs), "cosine" if decayed else "constant", 0.2 if decayed else 1.0)
    more = max(3, round(0.3 * epochs))
    lower.train_on(more, "constant", 0.02 if decayed else 0.1)
    return {
        "longer": last(longer.curves.test_loss[-max(5, epochs) :]),
        "fit_longer": last(longer.curves.fit_loss),
        "lower": last(lower.curves.test_loss[-more:]),
        "fit_lower": last(lower.curves.fit_loss[-more:]),
    }


def label(plant: str, facts: Facts) -> str | None:
    """The word that is right, or None if the oracle is not sure.

    A plant that does something other than planned is named by what the oracle saw. The empty word asks for continued
    trainings. A training between two words is not sure of either, and one whose log cannot show the cause is not sure:

    - **the start is not logged**: means of epochs begin after the loss has risen
    - **a constant answer does as well** at the end: a model too small, or a training that never started
    - **no gap of a leak**: a leak that leaves the usual gap, or a training that learned little by heart
    - **a fall within the jumps** of the loss on many test examples
    - **a schedule that has ended**: more time or a bigger model would help
    - **dropout or augmentation** closes the gap of a healthy training whose loss stays high, as in an underfit one
    """
    if not facts["finite"]:
        return "diverged"
    initial, end, fit_initial, fit_end = facts["initial"], facts["end"], facts["fit_initial"], facts["fit_end"]
    if facts["highest"] > 5 * fit_initial and fit_end > 0.7 * fit_initial:
        return "diverged"
    if fit_end > 1.2 * fit_initial:  # a log that begins after the rise does not show it
        return "diverged" if fit_end > 1.2 * facts["logged_first"] else None
    if fit_end - facts["fit_best"] > 0.5 * (fit_initial - facts["fit_best"]) > 0.15 * fit_initial:
        return "diverged"
    if facts["highest"] > 5 * fit_initial:
        return None
    learnable = facts["reference"] < 0.7 * initial
    if fit_end > 0.95 * fit_initial:
        return "not_started" if learnable and facts["highest"] < 1.3 * fit_initial else None
    if fit_end > 0.95 * facts["chance"]:  # a constant answer does as well: a model too small, or no start
        return None
    if fit_end > 0.8 * fit_initial and plant != "cut_too_early":
        return None
    if plant == "leaked":  # nothing can be seen where little was learned by heart, or where the usual gap is left
        shows = fit_end < 0.1 * fit_initial and facts["val_end"] < 1.5 * fit_end + 0.01 * initial
        return "leaked" if shows and end > 1.5 * facts["val_end"] + 0.05 * initial else None
    floor = max(end, 0.05 * initial)  # gains of small losses hardly count
    if facts["val_jumps"] > 0.2 and facts["val_rise"] < 4:  # a training that jumps on the test set too is unsteady
        return "noisy" if facts["test_jumps"] < 0.5 * facts["val_jumps"] else None
    readable = max(facts["val_jumps"], facts["test_jumps"]) < 0.1 or facts["val_rise"] > 4
    if plant == "noisy" or not readable:
        return None
    rise, better, gap = (end - facts["best"]) / floor, (end - facts["reference"]) / floor, (end - fit_end) / floor
    if rise > _LARGE:
        rose = (end - facts["best"]) > 3 * facts["test_jumps"] * initial and facts["val_rise"] > 3
        return "overfit" if rose and fit_end < 1.15 * facts["fit_best"] + 0.02 * fit_initial else None
    if plant == "overfit":
        return "overfit" if better > 0.3 and gap > 0.5 and end > 0.2 * initial else None
    if rise > max(_SMALL, 2 * facts["test_jumps"] * initial / floor):
        return None
    if "longer" not in facts:
        return ""
    longer, lower = (end - facts["longer"]) / floor, (end - facts["lower"]) / floor
    if longer > _LARGE and longer > 1.5 * lower:  # at a rate that has ended, a larger model may do as well
        visible = facts["falling"] > max(0.05, 3 * facts["test_jumps"] * initial / end)
        return "cut_too_early" if visible and not facts["decayed"] else None
    if facts["started"] > 0.3:  # it started late
        return None
    floor_fit = max(fit_end, 0.05 * fit_initial)
    if (fit_end - facts["fit_lower"]) / floor_fit > _LARGE and lower > max(_SMALL, 2 * longer):
        return "plateau"
    if max(longer, lower) > _SMALL:
        return None
    if plant == "underfit":
        return "underfit" if better > 0.3 and end > 0.25 * initial and gap < 0.3 else None
    # that a plant did no harm does not make it healthy: a larger model, say, was not tried
    if plant != "healthy" or better > _LARGE or end > 0.6 * initial:
        return None
    if end > 0.2 * initial and gap > 0.7:  # between healthy and overfit
        return None
    shown = 1 - facts["logged_end"] / facts["val_end"]  # dropout and augmentation close the gap that a log shows
    return None if end > 0.25 * initial and min(gap, shown) < 0.3 else "healthy"


def last(values: Sequence[float]) -> float:
    """Mean of the last fifth."""
    return fmean(values[-max(1, len(values) // 5) :])


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Running mean; infinite where a value is not finite."""
    plain = np.nan_to_num(np.array(values), nan=1e9, posinf=1e9)
    width = min(width, len(plain))
    return [float(each) for each in np.convolve(plain, np.ones(width) / width, mode="valid")]


def jumps(values: Sequence[float]) -> float:
    """Typical jump of the second half from epoch to epoch, apart from the trend."""
    half = values[len(values) // 2 :]
    return float(np.sqrt(np.mean(np.diff(half, 2) ** 2 / 6))) if len(half) > 3 else 0.0


def _started(curves: Curves) -> float:
    """Share of the training after which the loss on the training examples has done a tenth of its fall."""
    first, low = curves.fit_loss[0], min(curves.fit_loss)
    fallen = [place for place, loss in enumerate(curves.fit_loss) if loss < first - 0.1 * (first - low)]
    return fallen[0] / len(curves.fit_loss) if fallen else 1.0


@functools.cache
def reference(task: str) -> float:
    """Test loss of the task's own healthy training."""
    return last(Training(Settings(task)).run().test_loss)


@functools.cache
def chance(task: str) -> float:
    """Training loss of the best constant answer: the entropy of the labels, or the variance of a regression."""
    found = TASKS[task]
    y = found.parts()[0][1]
    if found.regression:
        return float(y.var())
    shares = y.bincount() / len(y)
    return float(-(shares * shares.clamp_min(1e-9).log()).sum())


def plain(facts: Facts) -> dict[str, Any]:
    """The facts as JSON can hold them."""
    return {name: round(value, 6) for name, value in facts.items()}
