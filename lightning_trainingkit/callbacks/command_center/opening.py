"""Open a run and describe the fit that it records."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_trainingkit._lightning import L, WandbLogger, rank_zero_warn
from lightning_trainingkit.callbacks.command_center.best_values import epoch_name
from lightning_trainingkit.dashboards.other_loggers import note_log_dirs
from lightning_trainingkit.dashboards.printable import printable

if TYPE_CHECKING:
    from wandb import Run

__all__ = ["check_run", "describe", "find_logger", "new_logger", "note_other_loggers"]


def find_logger(trainer: L.Trainer) -> WandbLogger | None:
    """The Trainer's first ``WandbLogger``."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)


def new_logger(trainer: L.Trainer, group: str | None, job_type: str, name: str | None) -> WandbLogger:
    """A logger for a Trainer that has no ``WandbLogger``: in the mode of ``WANDB_MODE``, offline by default."""
    import wandb

    if "://" not in trainer.default_root_dir:  # W&B warns of a missing folder, and then makes it
        Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "lightning_trainingkit"),
        save_dir=trainer.default_root_dir,
        group=group,
        job_type=job_type,
        name=name,
        # Not `offline=True`, which sets WANDB_MODE for the whole process.
        mode=os.environ.get("WANDB_MODE", "offline"),
        reinit="create_new",
        settings=wandb.Settings(quiet=True),
    )


def check_run(run: "Run", group: str | None, job_type: str, name: str | None) -> None:
    """Raise ValueError where the user's own logger has opened its run with a different group, job type or name."""
    for argument, asked, default in (("group", group, None), ("job_type", job_type, "train"), ("name", name, None)):
        found = getattr(run, argument)
        if asked not in (default, found):
            raise ValueError(
                f"`{argument}` must be as in the Trainer's own WandbLogger, whose run has {found!r}, got {asked!r}. "
                f"Pass it to the logger: `WandbLogger({argument}={asked!r})`."
            )


def describe(run: "Run", tags: Sequence[str], goals: Mapping[str, str]) -> None:
    """Set the tags, the axis of all metrics, and whether the summary keeps a metric's minimum or maximum."""
    run.tags = tuple(dict.fromkeys((*(run.tags or ()), *tags)))
    # As WandbLogger does for the runs that it opens itself.
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    for name, mode in ({epoch_name(name): mode for name, mode in goals.items()} | dict(goals)).items():
        run.define_metric(name, summary=mode, step_metric="trainer/global_step")


def note_other_loggers(trainer: L.Trainer, folder: Path) -> None:
    """Note the folders of the other loggers beside the run, so that a page shows the training once."""
    log_dirs = [log_dir for logger in trainer.loggers if (log_dir := _log_dir(logger))]
    if log_dirs:
        try:
            note_log_dirs(folder, log_dirs)
        except (OSError, ValueError) as error:
            said = f"The folders of the other loggers were not noted, so a page shows this fit twice: {error}"
            rank_zero_warn(printable(said))


def _log_dir(logger: object) -> str | None:
    """A logger's folder on this machine, None if it has none. A user's own logger may raise anything."""
    if isinstance(logger, WandbLogger):
        return None
    try:
        log_dir = getattr(logger, "log_dir", None)
    except Exception:
        return None
    return str(log_dir) if isinstance(log_dir, str | Path) and str(log_dir) and "://" not in str(log_dir) else None
