"""Results of a run, as ``results.json`` and as a table."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_trainingkit._files import write_json
from lightning_trainingkit._lightning import rank_zero_only
from lightning_trainingkit._version import versions

__all__ = ["finished_metrics", "print_table", "write_results"]


@rank_zero_only
def write_results(
    folder: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    seconds: float,
    figures: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write ``results.json``, on rank 0, whole or not at all.

    Args:
        folder: Folder of the run.
        config: Options of the run.
        metrics: Numbers by name.
        rows: Rows of the table that the run prints.
        seconds: Duration of the run.
        figures: Claims of the lecture, as ``claim`` returns them.
    """
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in config.items()}
    results = _finite({"config": settings, "metrics": dict(metrics), "rows": [dict(row) for row in rows]})
    if figures:
        results["figures"] = [dict(figure) for figure in figures]
    write_json(folder / "results.json", results | {"seconds": round(seconds, 2), "versions": versions()})


@rank_zero_only
def print_table(title: str, rows: Sequence[Mapping[str, Any]], *notes: str) -> None:
    """Print rows as a table, a column for each key, and notes below it, on rank 0."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)


def finished_metrics(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Load the metrics of a training that an earlier run of this recipe finished, or None.

    Args:
        folder: Folder of the training. A killed training left its settings in ``begun/results.json`` there.
        settings: The options that the training depends on.

    Raises:
        ValueError: If the training was begun with other settings.
    """
    found = None
    for file in (folder / "begun" / "results.json", folder / "results.json"):
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if found is not None and found["config"] != dict(settings):
            raise ValueError(
                f"`--output` must hold trainings with the present options, got {found['config']}. Take a new folder."
            )
    return None if found is None else dict(found["metrics"])


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
