"""All methods by name, and how each one's rates and trainings are found among the results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from . import fastai_rules
from .choosers import CHOOSERS
from .free import FREE
from .jobs import Job, Results
from .tasks import GRID, Task

__all__ = ["METHODS", "OURS", "RULES", "Cell", "best_rate", "cells", "first_jobs", "second_jobs"]

OURS = "ours"
RULES = (*(name for name in CHOOSERS if name != OURS), *fastai_rules.RULES)
"""The peers that choose a rate."""
CONTROL, DEFAULT = "best of other seeds", "1e-3 everywhere"
METHODS = (OURS, *RULES, *FREE, DEFAULT, CONTROL)


@dataclass(frozen=True)
class Cell:
    """One method in one seed of a task.

    Args:
        method: Name of the method.
        task: The task.
        seed: The seed.
        rate: The chosen rate; None for an optimizer without one, and where nothing was chosen.
        regret: Accuracy at the best fixed rate less accuracy at the choice, in points, in the same seed.
        failed: Whether there was no choice, the loss was not finite, or the accuracy is that of chance.
        iterations: Steps that the choice has cost.
        seconds: Time of a process that the choice has cost.
        error: What the method raised.
    """

    method: str
    task: Task
    seed: int
    rate: float | None
    regret: float
    failed: bool
    iterations: int = 0
    seconds: float | None = None
    error: str = ""


def first_jobs(tasks: Iterable[Task], seeds: Sequence[int]) -> list[Job]:
    """The grid of fixed rates, the range tests, the choices, and the optimizers without a rate."""
    jobs = []
    for task in tasks:
        for seed in seeds:
            jobs += [Job("train", task, seed, rate) for rate in GRID]
            jobs += [Job("choose", task, seed, name) for name in CHOOSERS]
            jobs += [Job("free", task, seed, name) for name in FREE]
            jobs.append(Job("range test", task, seed))
    return jobs


def second_jobs(tasks: Iterable[Task], seeds: Sequence[int], results: Results) -> list[Job]:
    """The trainings at the chosen rates."""
    chosen = [
        (task, seed, _choice(name, task, seed, results)[0])
        for task in tasks
        for seed in seeds
        for name in (OURS, *RULES)
    ]
    return [Job("train", task, seed, rate) for task, seed, rate in chosen if rate is not None]


def best_rate(task: Task, seeds: Iterable[int], results: Results) -> float:
    """The fixed rate with the best mean accuracy over these seeds."""
    chosen = list(seeds)
    means = {rate: fmean(results[Job("train", task, seed, rate)]["accuracy"] for seed in chosen) for rate in GRID}
    return max(means, key=means.__getitem__)


def cells(method: str, task: Task, seeds: Sequence[int], results: Results) -> list[Cell]:
    """Judge a method in each seed of a task."""
    best = best_rate(task, seeds, results)
    found = []
    for seed in seeds:
        rate: float | None = None
        cost: tuple[int, float | None, str] = (0, None, "")
        if method in FREE:
            outcome = results[Job("free", task, seed, method)]
        else:
            if method == CONTROL:
                rate = best_rate(task, [each for each in seeds if each != seed], results)
            elif method == DEFAULT:
                rate = 1e-3
            else:
                rate, *cost = _choice(method, task, seed, results)
            nothing = {"accuracy": task.chance, "finite": False}
            outcome = nothing if rate is None else results[Job("train", task, seed, rate)]
        reached = results[Job("train", task, seed, best)]["accuracy"]
        failed = not outcome["finite"] or outcome["accuracy"] <= task.above_chance
        found.append(Cell(method, task, seed, rate, 100 * (reached - outcome["accuracy"]), failed, *cost))
    return found


def _choice(method: str, task: Task, seed: int, results: Results) -> tuple[float | None, int, float | None, str]:
    """Rate, iterations, seconds, and the error."""
    if method in fastai_rules.RULES:
        test = results[Job("range test", task, seed)]
        return *fastai_rules.choose(method, test["rates"], test["losses"]), None, ""
    found = results[Job("choose", task, seed, method)]
    return found["rate"], found.get("iterations", 0), found.get("seconds"), found.get("error", "")
