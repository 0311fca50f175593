"""The target, the metric by which runs are compared: its choice, its better end, and its best value in a run."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from lightning_trainingkit.dashboards.panels import direction
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.dashboards.read.rows import STEP
from lightning_trainingkit.dashboards.secret import hide
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import is_of_step, named_mode, quantity_of, stage_of

__all__ = ["best_value", "better_end", "check_target", "default_target", "table_scores"]

_MONITOR = re.compile(r"callbacks\.[^.]+\.monitor")  # as CommandCenter writes a callback's arguments


def default_target(runs: Sequence[Record]) -> str:
    """Choose the target if the user names none.

    The first that exists of:

    - **A monitor** that a run has logged: first the monitor of most runs, then the metric that most runs have logged.
    - **A validation loss**, then a validation score.
    - **A monitor** that no run has logged yet.
    - **A training loss**, then a loss whose name has no stage, then scores in the same order.
    - **val/loss** otherwise.
    """
    monitors = Counter(name for run in runs for name in {monitor for monitor, _ in _monitors(run)})
    logged = Counter(name for run in runs for name in _names(run))
    counts = {name: max(logged[alias] for alias in _aliases(name)) for name in monitors}
    ranked = sorted(monitors, key=lambda name: (-monitors[name], -counts[name], stage_of(name) != "val", name))

    def named(stage: str | None, mode: str) -> list[str]:
        return [name for name in logged if stage_of(name) == stage and named_mode(name) == mode]

    choices = (
        [name for name in ranked if counts[name]],
        *(sorted(named("val", mode), key=lambda name: _rank(name, logged[name])) for mode in ("min", "max")),
        ranked,
        *(
            sorted(named(stage, mode), key=lambda name: _rank(name, logged[name]))
            for mode, stage in (("min", "train"), ("min", None), ("max", "train"), ("max", None))
        ),
        ["val/loss"],
    )
    return next(found[0] for found in choices if found)


def check_target(target: str, runs: Sequence[Record]) -> None:
    """Check that a run has logged the given target, or that a run's callback monitors it.

    Raises:
        ValueError: If the runs have metrics, but not the target. The message lists the metrics, the nearest name first.
    """
    target = hide(target)  # the page shows this name
    names = {hide(name) for run in runs for name in _names(run)}
    monitors = {hide(name) for run in runs for name, _ in _monitors(run)}
    if names and target not in monitors and names.isdisjoint(_aliases(target)):
        near = _check.nearest(target, sorted(names), most=20)
        there = ", ".join([*near, f"and {len(names) - len(near)} more"] if len(near) < len(names) else near)
        raise ValueError(f"`--target` must be a metric that a run has, got {target!r}. The runs have: {there}.")


def better_end(target: str, runs: Sequence[Record]) -> str | None:
    """Return the better end of a metric, ``"min"`` or ``"max"``, or None if it is unknown.

    The first of these decides:

    - **Goal**: the end that W&B keeps in the runs' summaries.
    - **Mode**: the mode that the runs' callbacks give with this monitor, if they agree.
    - **Name**: the words in the metric's name.
    - **Monitor** without a mode and without a known name: ``"min"``, as for the kit's callbacks.
    """
    goals = {name: goal for run in runs for name, goal in run.goals.items()}
    for name in _aliases(target):
        if name in goals:
            return goals[name]
    modes = {mode for run in runs for name, mode in _monitors(run) if name == target}
    said = sorted(mode for mode in modes if mode in ("min", "max"))
    return said[0] if len(said) == 1 else direction(target) or ("min" if modes and not said else None)


def best_value(run: Record, target: str, better: str) -> float | None:
    """Return the best finite value of a metric in a run. ``val_loss`` also finds ``val_loss_epoch``."""
    for name in _aliases(target):
        curve = run.curves.get(name)
        values = curve.values[np.isfinite(curve.values)] if curve is not None else np.zeros(0)
        if len(values):
            return float(values.max() if better == "max" else values.min())
    said = (run.summary[name] for name in _aliases(target) if name in run.summary)
    return next((value for value in said if np.isfinite(value)), None)


def table_scores(runs: Sequence[Record], target: str, most: int = 3) -> list[str]:
    """Choose the scores of a table beside the target: validation scores, one for each quantity, then test scores."""
    counts = Counter(name for run in runs for name in _names(run) - {*_aliases(target)})
    found: dict[tuple[str | None, str], str] = {}
    for name in sorted(counts, key=lambda name: _rank(name, counts[name])):
        if (
            named_mode(name) == "max"
            and stage_of(name) in ("val", "test")
            and not quantity_of(name).endswith("_member")
        ):
            found.setdefault((stage_of(name), quantity_of(name)), name)
    tests = [name for (stage, _), name in found.items() if stage == "test"]
    validations = [name for (stage, _), name in found.items() if stage == "val"]
    return [*validations[: most - 1 if tests else most], *tests][:most]


def _names(run: Record) -> set[str]:
    return {*run.curves, *run.summary} - {STEP, "epoch"}  # W&B's summaries hold these counters


def _aliases(target: str) -> tuple[str, str]:
    """A metric's name, and the name that Lightning gives its epoch values if steps are logged too."""
    name, loader, number = target.partition("/dataloader_idx_")
    return target, f"{name}_epoch{loader}{number}"


def _monitors(run: Record) -> Iterator[tuple[str, str | None]]:
    """The monitors of the run's callbacks, each with its mode."""
    for key, name in run.config.items():
        if isinstance(name, str) and name and _MONITOR.fullmatch(key):
            yield name, run.config.get(f"{key.removesuffix('monitor')}mode")


def _rank(name: str, count: int) -> tuple[bool, bool, int, int, str]:
    """Sort key: loss and accuracy before other quantities, epochs before steps, then by the number of runs."""
    return quantity_of(name) not in ("loss", "acc"), is_of_step(name), -count, len(name), name
