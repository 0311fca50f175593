"""Ask W&B's server, for example for the runs of a project."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from lightning_trainingkit.dashboards.read.record import Record, flatten
from lightning_trainingkit.dashboards.read.rows import STEP, Rows, is_number
from lightning_trainingkit.dashboards.read.wandb_run import best_end

__all__ = ["asking", "read_project"]

_STATES = {
    "pending": "running",
    "running": "running",
    "preempting": "running",
    "preempted": "killed",
    "crashed": "killed",
    "killed": "killed",
    "failed": "failed",
    "finished": "finished",
}
# Five tries, at most a minute and a half. The client's default patience suits a training, not a command. Values that
# the user has set, such as WANDB_HTTP_TIMEOUT, stay.
_PATIENCE = {
    "x_graphql_retry_max": 4,
    "x_graphql_retry_wait_min_seconds": 1.0,
    "x_graphql_retry_wait_max_seconds": 5.0,
    "x_graphql_timeout_seconds": 15.0,
}


def read_project(path: str) -> list[Record]:
    """Read all runs of ``ENTITY/PROJECT`` with all rows, the oldest run first.

    Raises:
        ValueError: If no user is logged in, if the project does not exist, or if W&B does not answer.
    """
    import wandb

    if path.count("/") != 1 or not all(path.split("/")):
        raise ValueError(f"`--online` must be ENTITY/PROJECT, got {path!r}. Copy it from the project's address.")
    with asking(f"read the runs of {path}"):
        # Not lazy: lazy runs need a request each for config and summary. `scan_history` gives all rows.
        return [_record(run) for run in wandb.Api().runs(path, lazy=False)]


@contextmanager
def asking(what: str) -> Iterator[str]:
    """Within the block, W&B's client prompts for no key, and gives up if its server does not answer.

    Args:
        what: The request in words, for errors: ``"read the runs of a/b"``.

    Yields:
        The server's web address.

    Raises:
        ValueError: If no user is logged in, or if the client raises. The message then gives W&B's reason in a line.
    """
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth

    settings = wandb_setup.singleton().settings
    before = {name: getattr(settings, name) for name in _PATIENCE}
    try:
        # `wandb.Api()` asks for a key in a terminal; `wandb.login(prompt=False)` refuses where WANDB_MODE is offline.
        login = wbauth.authenticate_session(
            host=settings.base_url, source="trainingkit", prompt=False, update_session=False
        )
        if login is not None:
            for name, value in _PATIENCE.items():
                if before[name] is None:
                    setattr(settings, name, value)
            yield settings.app_url.rstrip("/")
    except Exception as error:  # of several classes: W&B's WandbApiFailedError is neither a wandb.Error nor public
        reason = " ".join(str(error).split()).rstrip(".?")
        raise ValueError(
            f"W&B at {settings.base_url} did not {what}: {reason}. Check the names, the network and the account "
            "(wandb login)."
        ) from error
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
    if login is None:
        raise ValueError(
            f"`WANDB_API_KEY` must be set to {what} at {settings.base_url}, got none. Or run, once: wandb login."
        )


def _record(run: Any) -> Record:
    rows = Rows()
    for row in run.scan_history():
        rows.add(row.get(STEP, row.get("_step")), row)
    summary, goals = _summary(run.summary_metrics)
    started = datetime.fromisoformat(run.created_at.replace("Z", "+00:00"))
    return Record(
        id=run.id,
        name=run.name or run.id,
        project=run.project,
        group=run.group or "",
        job_type=run.job_type or "",
        tags=[str(tag) for tag in run.tags or ()],
        state=_STATES.get(run.state, "unknown"),
        started=(started if started.tzinfo else started.replace(tzinfo=timezone.utc)).timestamp(),
        seconds=float(run.summary_metrics.get("_runtime") or 0.0),
        config=flatten(run.config),
        goals=goals,
        summary=summary,
        curves=rows.curves(),
        source=run.url,
    )


def _summary(values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers by name, and the better end of each metric with one from ``define_metric``.

    Example:
        >>> _summary({"val/acc": {"max": 0.9}, "test/acc": 0.8, "_step": 7})
        ({'val/acc': 0.9, 'test/acc': 0.8}, {'val/acc': 'max'})
    """
    found: dict[str, float] = {}
    goals: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and (end := best_end(value)):
            goals[name], value = end, value[end]
        if is_number(value) and not name.startswith("_"):
            found[name] = float(value)
    return found, goals
