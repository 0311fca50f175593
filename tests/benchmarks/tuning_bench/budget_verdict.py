"""The arithmetic of the part `budget`: from searches and fresh scores to comparisons with goals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lightning_trainingkit.experiments.comparison import interval

from .rows import row

SHARE, COST = 0.99, 0.2  # of the accuracy and of the epochs of the random trials
RIVALS = ("seven steps", "plain Optuna", "random trials")


@dataclass(frozen=True)
class Scored:
    """What one search chose, trained again.

    Args:
        accuracy: Mean over the fresh seeds.
        loss: Mean over the fresh seeds.
        epochs: Epochs of the search.
    """

    accuracy: float
    loss: float
    epochs: float


def comparisons(found: Mapping[str, Mapping[str, Sequence[Scored]]]) -> list[dict[str, Any]]:
    """Compare the searches on each task, and over the tasks.

    Args:
        found: By task and by the names ``RIVALS`` a score for each repeat, in the same order.
    """
    rows, gains = [], []
    for task, rivals in found.items():
        ours, plain, random = (rivals[name] for name in RIVALS)
        shares = [mine.accuracy / theirs.accuracy for mine, theirs in zip(ours, random, strict=True)]
        costs = [mine.epochs / theirs.epochs for mine, theirs in zip(ours, random, strict=True)]
        differences = [100 * (mine.accuracy - theirs.accuracy) for mine, theirs in zip(ours, plain, strict=True)]
        gains.append(fmean(differences))
        mine, peer = _mean(ours, "accuracy"), _mean(random, "accuracy")
        rows.append(_row(f"{task}: accuracy, share of the random trials'", mine, peer, shares, SHARE, fmean(shares)))
        mine, peer = _mean(ours, "epochs"), _mean(random, "epochs")
        rows.append(_row(f"{task}: epochs, share of the random trials' (worst)", mine, peer, costs, -COST, -max(costs)))
        mine, peer = _mean(ours, "accuracy"), _mean(plain, "accuracy")
        high = sum(interval(differences))
        rows.append(_row(f"{task}: points above plain Optuna", mine, peer, differences, 0.0, high))
        for name, others in (("the random trials'", random), ("plain Optuna's", plain)):
            ratios = [mine.loss / theirs.loss for mine, theirs in zip(ours, others, strict=True)]
            mine, peer = _mean(ours, "loss"), _mean(others, "loss")
            rows.append(_row(f"{task}: loss, share of {name}", mine, peer, ratios))
    mean = fmean(gains)
    title = "mean of the tasks: points above plain Optuna"
    rows.append(row(title, mean, 0.0, mean, low=min(gains), high=max(gains), goal=0.0, ok=mean > 0))
    return rows


def _mean(scores: Sequence[Scored], name: str) -> float:
    return fmean(getattr(each, name) for each in scores)


def _row(
    name: str,
    ours: float,
    peer: float,
    values: Sequence[float],
    goal: float | None = None,
    judged: float = 0.0,
) -> dict[str, Any]:
    """Mean and 95 % interval over the repeats. A negative goal is the most that the measure may be."""
    mean, half = interval(values)
    shown = None if goal is None else abs(goal)
    ok = goal is None or judged >= goal
    return row(name, ours, peer, mean, low=mean - half, high=mean + half, goal=shown, ok=ok)
