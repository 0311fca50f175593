"""Read the runs of a project on W&B's server."""

from datetime import datetime
from typing import Any

from lightning_trainingkit.dashboards.record import Record, flatten
from lightning_trainingkit.dashboards.rows import STEP, Rows, is_number

__all__ = ["read_project"]

_STATES = {"crashed": "killed", "preempted": "killed", "pending": "running"}


def read_project(path: str) -> list[Record]:
    """Read all runs of ``ENTITY/PROJECT``, each row of them.

    Raises:
        ValueError: If nobody is logged in, or there is no such project.
    """
    import wandb
    from wandb.errors import Error

    if path.count("/") != 1:
        raise ValueError(f"`--online` must be ENTITY/PROJECT, got {path!r}.")
    if not wandb.api.api_key:
        raise ValueError("`WANDB_API_KEY` must be set to read runs from W&B's server, got none. Run: wandb login.")
    try:
        return [_record(run) for run in wandb.Api().runs(path)]
    except (Error, ValueError) as error:
        raise ValueError(f"W&B did not give the runs of {path}: {error}") from error


def _record(run: Any) -> Record:
    rows = Rows()
    for row in run.scan_history():
        rows.add(row.get(STEP, row.get("_step")), row)
    summary = dict(run.summary)
    return Record(
        id=run.id,
        name=run.name or run.id,
        project=run.project,
        group=getattr(run, "group", None) or "",
        job_type=getattr(run, "job_type", None) or "",
        tags=[str(tag) for tag in run.tags or ()],
        state=_STATES.get(run.state, run.state),
        started=datetime.fromisoformat(run.created_at.replace("Z", "+00:00")).timestamp(),
        seconds=float(summary.get("_runtime") or 0.0),
        config=flatten(run.config),
        summary={name: float(value) for name, value in summary.items() if is_number(value) and name[0] != "_"},
        curves=rows.curves(),
        source=run.url,
    )
