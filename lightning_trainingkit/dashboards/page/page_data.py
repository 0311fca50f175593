"""The data of the page, as plain values for JSON."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.checks import (
    CHECKS,
    SEARCHES,
    checks_of,
    is_search,
    is_trial,
    searches_of,
    without_checks,
)
from lightning_trainingkit.dashboards.page.described_panels import described_sections
from lightning_trainingkit.dashboards.page.encoded_curve import encoded
from lightning_trainingkit.dashboards.page.settings import columns, every_setting, hyperparameters, shared_settings
from lightning_trainingkit.dashboards.panels import Scores, Section
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.dashboards.secret import hide, hide_settings
from lightning_trainingkit.dashboards.target import best_value, better_end, table_scores
from lightning_trainingkit.functional.metric_name import stage_of

__all__ = ["page_data"]

_SHARES = 180_000  # of all curves together, so that the page of 20 runs stays below 12 MB
_IDENTITY = ("id", "name", "project", "group", "job_type", "tags", "state", "note")


def page_data(
    runs: Sequence[Record],
    sections: Sequence[Section],
    target: str = "val/loss",
    skipped: Mapping[str, str] | None = None,
    better: str | None = None,
) -> dict[str, Any]:
    """Join runs and sections: panels that have data, settings that differ, thinned curves.

    Secrets are hidden in every text. The record of a search is no run: ``judged`` has its verdicts, the newest last.

    Args:
        runs: The recorded runs.
        sections: Sections of the center. Metrics that no panel shows get an additional section.
        target: Metric by which runs are compared.
        skipped: Files that hold no run, with the reasons.
        better: ``"min"`` or ``"max"``, the better end of the target. By default the runs or the target's name say it.

    Raises:
        ValueError: If the better end of the target is unknown.
    """
    runs = [_without_secrets(run) for run in runs]
    judged = sorted(filter(is_search, runs), key=lambda run: run.started)
    runs = [run for run in runs if not is_search(run)]
    trials = any(map(is_trial, runs))
    checks, searches = [checks_of(run) for run in runs], [searches_of(run) for run in runs]
    verdicts = [*searches, *map(searches_of, judged)]
    runs = [without_checks(run) for run in runs]
    target = hide(target)
    better = better or better_end(target, runs)
    if better is None:
        raise ValueError(
            f"`--better` must be min or max where no run says which end of {target} is the better one, got none."
        )
    every = every_setting(runs)
    settings, shared = columns(every, runs), shared_settings(every, runs)
    best = [best_value(run, target, better) for run in runs]
    compared = [place for place, value in enumerate(best) if value is not None] or range(len(runs))
    names = hyperparameters({name: [values[place] for place in compared] for name, values in settings.items()})
    shares = min(800, max(50, _SHARES // max(1, sum(len(run.curves) for run in runs))))
    scores = {
        name for section in sections for each in section.panels if isinstance(each, Scores) for name in each.metrics
    }
    compares = bool(names) and any(value is not None for value in best)
    described = described_sections(sections, runs, compares, any(checks), any(verdicts))
    drawn = {
        name
        for _, panels in described
        for panel in panels
        for name in (panel.get("metric"), panel.get("one"), panel.get("other"))
        if panel["kind"] in ("curves", "gap")
    }
    beside = table_scores(runs, target)
    return {
        "counted": _counted(runs),
        "target": target,
        "better": better,
        "scores": list(beside),
        "best_scores": [name for name in beside if stage_of(name) != "test"],
        "settings": list(settings),
        "shared": {name: next(value for value in values if value is not None) for name, values in shared.items()},
        "hyperparameters": names,
        "checks": {name: title for name, title in CHECKS.items() if any(name in found for found in checks)},
        "searches": {name: title for name, title in SEARCHES.items() if any(name in found for found in verdicts)},
        "judged": [{"key": _key(run), "title": run.name or run.id, "searches": searches_of(run)} for run in judged],
        "trials": trials,
        "skipped": {hide(file): hide(why) for file, why in (skipped or {}).items()},
        "sections": [
            {
                "id": section.id or re.sub(r"\W+", "-", section.title).lower(),
                "title": section.title,
                "panels": panels,
                "empty": _missing(section, target, names) if runs else "No runs yet.",
            }
            for section, panels in described
        ],
        "runs": [
            {
                "key": _key(run),
                **{name: getattr(run, name) for name in _IDENTITY},
                "name": run.name if run.name != run.id else _name(run.id, names, settings, place),
                "seconds": round(run.seconds, 1) or None,
                "lacks": [name for name, values in shared.items() if values[place] is None],
                "config": {name: values[place] for name, values in settings.items()},
                "checks": checks[place],
                "searches": searches[place],
                "best": best[place],
                "scores": {name: value for name in beside if (value := _score(run, name)) is not None},
                "summary": {name: value for name in scores if (value := _last(run, name)) is not None},
                "curves": {name: encoded(curve, shares) for name, curve in run.curves.items() if name in drawn},
            }
            for place, run in enumerate(runs)
        ],
    }


def _key(run: Record) -> str:
    return hashlib.sha1(os.fsencode(f"{run.source} {run.project} {run.id}")).hexdigest()[:12]


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


def _missing(section: Section, target: str, names: Sequence[str]) -> str:
    """Text of a section without panels."""
    if section.missing:
        return section.missing
    return f"No run has logged {target}." if names else "No setting that may have an effect differs between the runs."


def _name(identity: str, names: Sequence[str], settings: Mapping[str, list[Any]], place: int) -> str:
    """Name a run without a name by the first settings that differ."""
    ends = [name.rpartition(".")[2] for name in settings]
    short = {name: end if ends.count(end) == 1 else name for name, end in zip(settings, ends, strict=True)}
    found = [f"{short[name]}={settings[name][place]}" for name in names[:3] if settings[name][place] is not None]
    return ", ".join(found) or identity


def _score(run: Record, name: str) -> float | None:
    """The best value of a validation metric, or the last value of a test metric."""
    return _last(run, name) if stage_of(name) == "test" else best_value(run, name, "max")


def _last(run: Record, name: str) -> float | None:
    value = run.summary.get(name)
    if value is None and name in run.curves:
        value = float(run.curves[name].values[-1])
    return value if value is not None and np.isfinite(value) else None


def _counted(runs: Sequence[Record]) -> str:
    states = [run.state for run in runs]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"{len(runs)} run{'s' * (len(runs) > 1)} ({', '.join(counts)})" if runs else "no runs"
