"""Ask W&B's server, for the runs of a project say."""

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
# Five tries, at most a minute and a half: the client's own patience suits a training and not a command. What a user has
# set, WANDB_HTTP_TIMEOUT say, stays.
_PATIENCE = {
    "x_graphql_retry_max": 4,
    "x_graphql_retry_wait_min_seconds": 1.0,
    "x_graphql_retry_wait_max_seconds": 5.0,
    "x_graphql_timeout_seconds": 15.0,
}


def read_project(path: str) -> list[Record]:
    """Read all runs of ``ENTITY/PROJECT``, each row of them, oldest run first.

    Raises:
        ValueError: If nobody is logged in, if there is no such project, or if W&B doesn't answer.
    """
    import wandb

    if path.count("/") != 1 or not all(path.split("/")):
        raise ValueError(f"`--online` must be ENTITY/PROJECT, got {path!r}. Copy it from the project's address.")
    with asking(f"read the runs of {path}"):
        # Not lazy, else config and summary cost a request for each run. Histories through `scan_history`: all rows.
        return [_record(run) for run in wandb.Api().runs(path, lazy=False)]


@contextmanager
def asking(what: str) -> Iterator[str]:
    """Within it W&B's client asks nobody for a key and gives up where its server doesn't answer; gives its web address.

    Args:
        what: What is asked for, ``"read the runs of a/b"`` say.

    Raises:
        ValueError: If nobody is logged in, or with W&B's reason in a line for all that the client raises.
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
    except Exception as error:  # of several families, W&B's WandbApiFailedError is neither a wandb.Error nor public
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
    """Numbers by name, and which end is the better one where ``define_metric`` said so: ``{"val/acc": {"max": 0.9}}``.

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
