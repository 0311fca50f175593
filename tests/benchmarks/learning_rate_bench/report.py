"""The tables and the goals."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

from lightning_trainingkit.experiments.comparison import interval

from .jobs import Job, Results
from .methods import METHODS, OURS, RULES, Cell, best_rate
from .tasks import GRID, Task

__all__ = ["TOLERANCE", "goals", "grid_rows", "method_rows", "task_rows"]

MEDIAN, WORST, ITERATIONS = 0.5, 2.0, 800
TOLERANCE = 0.5  # points by which the upper end of ours less the best rule's mean may exceed 0; fixed before any run


def by_task(cells: Iterable[Cell], method: str) -> dict[str, float]:
    """Mean regret over the seeds of each task."""
    groups = defaultdict(list)
    for cell in cells:
        if cell.method == method:
            groups[cell.task.name].append(cell.regret)
    return {task: fmean(regrets) for task, regrets in groups.items()}


def method_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a method, the lowest mean first."""
    rows = []
    for method in METHODS:
        own = [cell for cell in cells if cell.method == method]
        tasks = by_task(own, method)
        times = [cell.seconds for cell in own if cell.seconds is not None]
        rows.append(
            {
                "method": method,
                "median": round(median(tasks.values()), 2),
                "mean": round(fmean(tasks.values()), 2),
                "worst": round(max(tasks.values()), 2),
                "seed": round(max(cell.regret for cell in own), 1),
                "failed": sum(cell.failed for cell in own),
                "steps": round(fmean(cell.iterations for cell in own)),
                "s": round(fmean(times), 2) if times else None,
            }
        )
    return sorted(rows, key=lambda row: row["mean"])


def grid_rows(tasks: Iterable[Task], seeds: Sequence[int], results: Results) -> list[dict[str, Any]]:
    """One row a task: the best fixed rate, the rates within a point of it, and the top of the grid."""
    rows = []
    for task in tasks:
        means = {
            rate: 100 * fmean(results[Job("train", task, seed, rate)]["accuracy"] for seed in seeds) for rate in GRID
        }
        best = best_rate(task, seeds, results)
        rows.append(
            {
                "task": task.name,
                "best rate": best,
                "accuracy, %": round(means[best], 1),
                "within 1 point": _span([rate for rate, mean in means.items() if mean >= means[best] - 1]),
                "at 10, %": round(means[GRID[-1]], 1),
            }
        )
    return rows


def task_rows(tasks: Iterable[Task], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a task: the regret of ours and of the best rule, and our rates."""
    rule = best_rule(cells)
    ours, peer = by_task(cells, OURS), by_task(cells, rule)
    return [
        {
            "task": task.name,
            "half": task.half,
            "our rates": _span([c.rate for c in cells if c.method == OURS and c.task == task and c.rate is not None]),
            "ours": round(ours[task.name], 2),
            rule: round(peer[task.name], 2),
        }
        for task in tasks
    ]


def best_rule(cells: Iterable[Cell]) -> str:
    """The peer with the lowest mean regret."""
    kept = list(cells)
    return min(RULES, key=lambda rule: fmean(by_task(kept, rule).values()))


def goals(name: str, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The goals for ours, beside the best rule of these tasks."""
    rule = best_rule(cells)
    ours, peer = ([cell for cell in cells if cell.method == method] for method in (OURS, rule))
    mine, theirs = by_task(ours, OURS), by_task(peer, rule)
    pairs = zip(ours, peer, strict=True)
    middle, half = interval([one.regret - other.regret for one, other in pairs])

    def row(what: str, own: float, other: float, goal: float | None) -> dict[str, Any]:
        numbers = {"ours": own, "peer": other, "ratio": own, "low": None, "high": None}
        return {"name": f"{name}: {what}", **numbers, "goal": goal, "ok": goal is None or own <= goal}

    means = fmean(mine.values()), fmean(theirs.values())
    return [
        row("median regret", median(mine.values()), median(theirs.values()), MEDIAN),
        row("worst task", max(mine.values()), max(theirs.values()), WORST),
        row("worst seed", *(max(cell.regret for cell in each) for each in (ours, peer)), None),
        row("diverged or at chance", *(sum(cell.failed for cell in each) for each in (ours, peer)), 0),
        row("mean regret", *means, None),
        {
            "name": f"{name}: mean less that of {rule}",
            "ours": means[0],
            "peer": means[1],
            "ratio": middle,
            "low": middle - half,
            "high": middle + half,
            "goal": TOLERANCE,
            "ok": middle + half <= TOLERANCE,
        },
        row("most iterations", *(max(cell.iterations for cell in each) for each in (ours, peer)), ITERATIONS),
    ]


def _span(rates: Sequence[float]) -> str:
    if not rates:
        return "none"
    low, high = min(rates), max(rates)
    return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
