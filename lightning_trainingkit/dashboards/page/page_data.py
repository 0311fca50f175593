"""What the page needs to know of all runs, as JSON can hold it."""

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.panels import (
    Curves,
    Dots,
    Gap,
    Panel,
    Parallel,
    Scores,
    Section,
    Table,
    direction,
)
from lightning_trainingkit.dashboards.read.record import Curve, Record
from lightning_trainingkit.dashboards.read.thinning import is_drawable, thin
from lightning_trainingkit.dashboards.secret import hide, hide_settings

__all__ = ["page_data"]

_SHARES = 375_000  # of all curves together, so that the largest page stays near 17 MB
_IDENTITY = ("id", "name", "project", "group", "job_type", "tags", "state", "note")


def page_data(
    runs: Sequence[Record],
    sections: Sequence[Section],
    target: str = "val/loss",
    skipped: Mapping[str, str] | None = None,
    better: str | None = None,
) -> dict[str, Any]:
    """Bring runs and sections together: panels that have something to show, settings that differ, thinned curves.

    Secrets are hidden in every text.

    Args:
        runs: What was recorded.
        sections: The center. Metrics that no panel of it shows get a section of their own.
        target: The metric that runs are compared by.
        skipped: Files that hold no run, and why.
        better: Which end of the target is the better one, ``"min"`` or ``"max"``; by default what the runs or its name
            say.

    Raises:
        ValueError: If nothing says which end of the target is the better one.
    """
    runs = [_without_secrets(run) for run in runs]
    target = hide(target)
    goals = {name: goal for run in runs for name, goal in run.goals.items()}
    better = better or goals.get(target) or direction(target)
    if better is None:
        raise ValueError(
            f"`--better` must be min or max where no run says which end of {target} is the better one, got none."
        )
    trained = [place for place, run in enumerate(runs) if run.curves]
    every = _settings(runs)
    settings = {name: values for name, values in every.items() if _differ(values, trained)}
    shared = {name: values for name, values in every.items() if name not in settings}
    best = [_best(run, target, better) for run in runs]
    compared = [place for place, value in enumerate(best) if value is not None] or range(len(runs))
    names = _hyperparameters({name: [values[place] for place in compared] for name, values in settings.items()})
    shares = min(800, max(50, _SHARES // max(1, sum(len(run.curves) for run in runs))))
    scores = {
        name for section in sections for each in section.panels if isinstance(each, Scores) for name in each.metrics
    }
    curves = {name for run in runs for name, curve in run.curves.items() if len(curve.steps)}
    described = [(section.title, list(_panels(section, curves, runs, names))) for section in sections]
    shown = {panel["metric"] for _, panels in described for panel in panels if panel["kind"] == "curves"}
    others = sorted(name for name in curves - shown if not name.startswith("test/"))
    if others:
        described.append(("Other metrics", [_described(Curves(name)) for name in others]))
    drawn = {
        name
        for _, panels in described
        for panel in panels
        for name in (panel.get("metric"), panel.get("one"), panel.get("other"))
        if panel["kind"] in ("curves", "gap")
    }
    return {
        "counted": _counted(runs),
        "target": target,
        "better": better,
        "settings": sorted(settings),
        "shared": {name: next(value for value in values if value is not None) for name, values in shared.items()},
        "hyperparameters": names,
        "skipped": {hide(file): hide(why) for file, why in (skipped or {}).items()},
        "sections": [
            {
                "id": re.sub(r"\W+", "-", name).lower(),
                "title": name,
                "panels": panels,
                "empty": "No run has what this would show." if runs else "No runs yet.",
            }
            for name, panels in described
        ],
        "runs": [
            {
                "key": hashlib.sha1(os.fsencode(f"{run.source} {run.project} {run.id}")).hexdigest()[:12],
                **{name: getattr(run, name) for name in _IDENTITY},
                "name": run.name if run.name != run.id else _name(run.id, names, settings, place),
                "seconds": round(run.seconds, 1) or None,
                "lacks": [name for name, values in shared.items() if values[place] is None],
                "config": {name: values[place] for name, values in settings.items()},
                "best": best[place],
                "summary": {name: value for name in scores if (value := _last(run, name)) is not None},
                "curves": {name: _encoded(curve, shares) for name, curve in run.curves.items() if name in drawn},
            }
            for place, run in enumerate(runs)
        ],
    }


def _without_secrets(run: Record) -> Record:
    return replace(
        run,
        id=hide(run.id),
        name=hide(run.name),
        project=hide(run.project),
        group=hide(run.group),
        job_type=hide(run.job_type),
        note=hide(run.note),
        tags=[hide(tag) for tag in run.tags],
        config=hide_settings(run.config),
        goals={hide(name): goal for name, goal in run.goals.items()},
        summary={hide(name): value for name, value in run.summary.items()},
        curves={hide(name): curve for name, curve in run.curves.items()},
    )


def _panels(
    section: Section, curves: set[str], runs: Sequence[Record], hyperparameters: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The section's panels that have something to show."""
    logged = {name for run in runs for name in (*run.curves, *run.summary)}
    for panel in section.panels:
        if isinstance(panel, Curves):
            for name in sorted(name for name in curves if fnmatchcase(name, panel.metric)):
                yield _described(Curves(name, panel.log_y and _positive(runs, name), panel.smooth))
        elif isinstance(panel, Gap):
            if {panel.one, panel.other} <= curves:
                yield _described(panel)
        elif isinstance(panel, Scores):
            if logged.intersection(panel.metrics):
                yield _described(panel)
        elif isinstance(panel, Table):
            if runs:
                yield _described(panel)
        elif hyperparameters and panel.metric in logged:
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
        }.get(type(panel), "What each setting explains")
    return {"kind": kind, "id": f"{kind} {title}", "title": title, **vars(panel)}


def _settings(runs: Sequence[Record]) -> dict[str, list[Any]]:
    """Values of each setting, run by run."""
    found: dict[str, list[Any]] = {}
    for place, run in enumerate(runs):
        for name, value in run.config.items():
            if value is None:
                continue
            if isinstance(value, float) and not np.isfinite(value):
                value = str(value)
            found.setdefault(name, [None] * len(runs))[place] = value
    return found


def _differ(values: Sequence[Any], trained: Sequence[int]) -> bool:
    """Whether a setting differs. To have none counts among trainings; an evaluation may know of no settings."""
    return len({repr(value) for value in values if value is not None}) > 1 or (
        len({repr(values[place]) for place in trained}) > 1
    )


def _positive(runs: Sequence[Record], name: str) -> bool:
    """Whether a logarithmic axis shows all of a metric."""
    return not any((run.curves[name].values <= 0).any() for run in runs if name in run.curves)


def _hyperparameters(settings: Mapping[str, list[Any]]) -> list[str]:
    """Settings that differ and may have an effect: numbers, and words that several runs share; of copies, one."""
    found: dict[str, str] = {}
    for name in sorted(settings, key=lambda name: (name.count("."), len(name), name)):
        there = [value for value in settings[name] if value is not None]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
        kinds = {str(value) for value in settings[name]}
        if len(kinds) < 2 or name.startswith("versions.") or any(kind.startswith("***") for kind in kinds):
            continue
        if not numeric and (len(kinds) > 12 or len(kinds) == len(settings[name]) > 2):
            continue
        found.setdefault(repr(settings[name]), name)
    return list(found.values())


def _name(identity: str, names: Sequence[str], settings: Mapping[str, list[Any]], place: int) -> str:
    """A run that nobody has named is told by the first settings that differ."""
    found = [f"{name}={settings[name][place]}" for name in names[:3] if settings[name][place] is not None]
    return ", ".join(found) or identity


def _best(run: Record, target: str, better: str) -> float | None:
    curve = run.curves.get(target)
    values = curve.values[np.isfinite(curve.values)] if curve is not None else np.zeros(0)
    if len(values):
        return float(values.max() if better == "max" else values.min())
    value = run.summary.get(target)
    return value if value is not None and np.isfinite(value) else None


def _last(run: Record, name: str) -> float | None:
    value = run.summary.get(name)
    if value is None and name in run.curves:
        value = float(run.curves[name].values[-1])
    return value if value is not None and np.isfinite(value) else None


def _encoded(curve: Curve, shares: int) -> dict[str, Any]:
    curve = thin(curve, shares)
    steps, drawable = curve.steps, is_drawable(curve.values)
    # Whole numbers up to here are exact in 32 bits.
    wide = bool(len(steps)) and bool(np.abs(steps).max() >= 2**24 or (steps != np.floor(steps)).any())
    kind = "<f8" if wide else "<f4"
    odd = np.flatnonzero(np.logical_not(drawable))
    kinds = ["NaN" if value != value else "Infinity" if value > 0 else "-Infinity" for value in curve.values[odd]]
    encoded: dict[str, Any] = {
        "x": _base64(steps[drawable], kind),
        "y": _base64(curve.values[drawable], "<f4"),
        "odd": list(zip(steps[odd].tolist(), kinds, strict=True)),
    }
    if wide:
        encoded["wide"] = 1
    if curve.means is not None:
        encoded |= {
            "mx": _base64(curve.means[0], kind),
            "my": _base64(curve.means[1], "<f4"),
            "mc": _base64(curve.means[2], "<u4"),
        }
    return encoded


def _base64(values: Any, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _counted(runs: Sequence[Record]) -> str:
    states = [run.state for run in runs]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"{len(runs)} runs ({', '.join(counts)})" if runs else "no runs"
