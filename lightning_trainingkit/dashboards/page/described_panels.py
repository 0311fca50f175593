"""Describe the panels that have data, as plain values for JSON."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.panels import (
    Checks,
    Curves,
    Dots,
    Gap,
    Panel,
    Parallel,
    Scores,
    Searches,
    Section,
    Table,
)
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.functional.metric_name import stage_of

__all__ = ["described_sections"]


def described_sections(
    sections: Sequence[Section],
    runs: Sequence[Record],
    compares: bool,
    checked: bool = False,
    searched: bool = False,
) -> list[tuple[Section, list[dict[str, Any]]]]:
    """Describe each section with its panels that have data. Curves that no section shows get a section at the end.

    Args:
        sections: Sections of the center.
        runs: The recorded runs.
        compares: Whether the hyperparameter panels have data: a best value, and settings that differ.
        checked: Whether a check says something about a run.
        searched: Whether the tuning playbook says something about a search.
    """
    shown: set[str] = set()  # metrics whose curves a panel shows; no second panel shows them
    found = [(section, list(_panels(section, runs, compares, checked, searched, shown))) for section in sections]
    others = sorted(_curves(runs) - shown - _single_tests(runs))
    if others:
        section = Section("Other metrics", tuple(map(Curves, others)))
        found.append((section, [_described(panel) for panel in section.panels]))
    return found


def _panels(
    section: Section, runs: Sequence[Record], compares: bool, checked: bool, searched: bool, shown: set[str]
) -> Iterator[dict[str, Any]]:
    curves = _curves(runs)
    exact = [panel for panel in section.panels if isinstance(panel, Curves) and not panel.smooth]
    equals = _equals([name for panel in exact for name in _meant(panel, curves)], runs)
    logged = {name for run in runs for name in (*run.curves, *run.summary)}
    for panel in section.panels:
        if isinstance(panel, Curves):
            for name in _meant(panel, curves):
                if name not in shown:
                    equal = [name, *(other for other in equals.get(name, ()) if other not in {name, *shown})]
                    shown.update(equal)
                    log_y = panel.log_y and _positive(runs, name)
                    yield {**_described(Curves(name, log_y, panel.smooth)), "title": _together(equal)}
        elif isinstance(panel, Gap):
            if {panel.one, panel.other} <= curves:
                yield _described(panel)
        elif isinstance(panel, Scores):
            if logged.intersection(panel.metrics):
                yield _described(panel)
        elif isinstance(panel, Table | Checks | Searches):
            if {Table: bool(runs), Checks: checked, Searches: searched}[type(panel)]:
                yield _described(panel)
        elif compares:
            yield _described(panel)


def _described(panel: Panel) -> dict[str, Any]:
    kind = type(panel).__name__.lower()
    if isinstance(panel, Curves):
        title = panel.metric
    elif isinstance(panel, Gap | Scores):
        title = panel.title
    else:
        title = {
            Parallel: "All settings of each run",
            Dots: "One dot a run",
            Table: "All runs",
            Checks: "Verdicts",
            Searches: "Searches",
        }.get(type(panel), "What each setting explains")
    return {"kind": kind, "id": f"{kind} {title}", "title": title, **vars(panel)}


def _curves(runs: Sequence[Record]) -> set[str]:
    return {name for run in runs for name, curve in run.curves.items() if len(curve.steps)}


def _single_tests(runs: Sequence[Record]) -> set[str]:
    """Test metrics that have one step in each run, so that no curve can be drawn."""
    tests = {name for name in _curves(runs) if stage_of(name) == "test"}
    several = {name for run in runs for name in tests & run.curves.keys() if len(np.unique(run.curves[name].steps)) > 1}
    return tests - several


def _meant(panel: Curves, curves: set[str]) -> list[str]:
    """Names of a panel's metrics. An asterisk at the end of its name stands for any characters."""
    if panel.metric.endswith("*"):
        return sorted(name for name in curves if name.startswith(panel.metric[:-1]))
    return [panel.metric] if panel.metric in curves else []


def _equals(names: Sequence[str], runs: Sequence[Record]) -> dict[str, list[str]]:
    """Map each metric to the metrics with equal curves in every run. The metric itself is among them."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(_digest(name, runs), []).append(name)
    return {name: group for group in groups.values() for name in group}


def _digest(name: str, runs: Sequence[Record]) -> str:
    found = hashlib.sha256()
    for run in runs:
        curve = run.curves.get(name)
        found.update(b"none" if curve is None else str(len(curve.steps)).encode())
        if curve is not None:
            found.update(curve.steps.tobytes())
            found.update(curve.values.tobytes())
    return found.hexdigest()


def _together(names: Sequence[str]) -> str:
    """Return the title of a panel that shows several equal metrics.

    Example:
        >>> _together(["lr-SGD/pg1", "lr-SGD/pg2", "lr-SGD/pg3"])
        'lr-SGD/pg1, equal to pg2, pg3'
    """
    folder = names[0].rpartition("/")[0] + "/"
    rest = [name.removeprefix(folder) for name in names[1:]]
    return f"{names[0]}, equal to {', '.join(rest)}" if rest else names[0]


def _positive(runs: Sequence[Record], name: str) -> bool:
    """Whether all values of a metric are above 0, or NaN."""
    return not any((run.curves[name].values <= 0).any() for run in runs if name in run.curves)
