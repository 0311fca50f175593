"""Keep a record of every fit with Weights & Biases."""

import atexit
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trainingkit._lightning import (
    EarlyStopping,
    L,
    ModelCheckpoint,
    WandbLogger,
    rank_zero_warn,
    refuse_other_package,
)
from lightning_trainingkit.callbacks._best_weights import take_mode
from lightning_trainingkit.callbacks._lightning import refuse_twice
from lightning_trainingkit.callbacks.command_center._lightning import (
    guard_logger,
    mute_logger,
    open_run,
    take_run,
    unused_run,
)
from lightning_trainingkit.callbacks.command_center.settings import settings_of
from lightning_trainingkit.dashboards.heartbeat import Heartbeat
from lightning_trainingkit.dashboards.page.render import check_file
from lightning_trainingkit.dashboards.secret import hide
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.weights.trained import mark_trained

if TYPE_CHECKING:
    from wandb import Run

__all__ = ["CommandCenter"]

_BEST = {"val/acc": "max", "val/loss": "min"}


class CommandCenter(L.Callback):
    """Record each fit as a W&B run of its own, offline and without an account; the training itself is unchanged.

    The run's config holds the hyperparameters (which Lightning logs where ``save_hyperparameters`` was called), the
    settings of trainer, optimizers and callbacks, and the versions. Its summary holds a metric's best value, not the
    last. A fit that raises ends its run as failed. If W&B fails, a warning says so once, and training goes on without
    it until the next fit. Secrets become ``***`` in names, tags, notes and config, but not in printed text, in
    files, or in what your own ``WandbLogger`` opens its first run with.

    A ``WandbLogger`` of the Trainer is used. Where there is none, one is appended to ``trainer.loggers`` and stays
    there; its mode is ``WANDB_MODE`` or offline, its project ``WANDB_PROJECT`` or ``lightning_trainingkit``, its folder
    ``trainer.default_root_dir``. As with any logger, a Trainer that had none then saves its checkpoints under
    ``PROJECT/RUN_ID/checkpoints``, unless they are told where.

    The run stays open after the fit, so that ``trainer.test`` logs into it too, and ends with ``finish``, this
    callback's next fit or the process. By a heartbeat beside its file ``trainingkit dashboard`` tells a run that goes
    on from one that was killed. ``validate`` and ``test`` before any fit are left as they are, and so are
    ``fast_dev_run`` and ``barebones``, which Lightning runs without loggers. Only rank 0 talks to W&B.

    Args:
        group: What the fits of one experiment share (a grid, the folds of a cross-validation, an ensemble), by which
            W&B shows them together.
        job_type: The fit's part in its group, such as ``"train"`` or ``"ensemble"``.
        tags: Words to find the run by.
        name: What varies between the runs of the group, such as ``"lr=3e-4"``; by default W&B names the run.
        best: Metric name to ``"min"`` or ``"max"``: which end is the best. Added to the monitors of early stopping and
            checkpoint callbacks and to ``{"val/acc": "max", "val/loss": "min"}``, which it overrules.
        page: Where to write the command center, one HTML file with all runs that W&B keeps in this run's folder: at the
            end of each fit with what W&B has written by then (it may hold the last 15 seconds back), and when the run
            ends with everything. None writes none.

    Raises:
        ValueError: If a mode in ``best`` is neither ``"min"`` nor ``"max"``, if a tag is empty or longer than 64
            characters, if a Trainer has two of this callback, or if the Trainer's own ``WandbLogger`` has started its
            run with another group or job type.
        TypeError: If ``tags`` is one string.
        IsADirectoryError: If ``page`` is a folder.
        ImportError: If a page is asked for and plotly is not installed.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[CommandCenter(group="width", best={"val/f1": "max"})], logger=False)
    """

    def __init__(
        self,
        group: str | None = None,
        job_type: str = "train",
        *,
        tags: Sequence[str] = (),
        name: str | None = None,
        best: dict[str, str] | None = None,
        page: str | None = None,
    ) -> None:
        for metric, mode in (best or {}).items():
            _check.one_of(f"best[{metric!r}]", mode, ("min", "max"), f"Say which end of {metric} is the better one.")
            take_mode("CommandCenter", metric, mode)  # says where the name contradicts
        if isinstance(tags, str):
            raise TypeError(f"`tags` must be a list of strings, got {tags!r}. Write `tags=[{tags!r}]`.")
        _check_tags(tags)
        if page is not None and find_spec("plotly") is None:
            raise ImportError("`page` needs plotly. Run: pip install 'lightning-trainingkit[dashboard]'.")
        if page is not None:
            check_file(Path(page))
        self.group = group
        self.job_type = job_type
        self.tags = tags
        self.name = name
        self.best = best
        self.page = page
        self._run: Run | None = None  # the latest fit's, on rank 0, until it is finished
        self._logger: WandbLogger | None = None  # whose run it is
        self._heartbeat: Heartbeat | None = None
        self._at_exit: Callable[[], Any] | None = None
        self._lost = False
        self._release: Callable[[], None] | None = None  # set between setup and teardown

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: the run, its logger, its heartbeat and the guard."""
        return {**vars(self), **dict.fromkeys(("_run", "_logger", "_heartbeat", "_at_exit", "_release"))}

    def finish(self, exit_code: int = 0) -> None:
        """End the latest fit's run now, where many fits share a process; what is logged later goes nowhere.

        Args:
            exit_code: Other than 0: the run has failed.
        """
        if self._run is not None:
            self._let_go()
            self._finish(exit_code)
            assert self._logger is not None  # its run was opened
            mute_logger(self._logger)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Open the fit's run and guard the logger."""
        refuse_other_package(self, trainer)
        refuse_twice(trainer, self, "Give all arguments to one.")
        if trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
            return
        logger = _wandb_logger(trainer)
        if stage == "fit":
            if logger is None:
                logger = self._new_logger(trainer)
                trainer.loggers = [*trainer.loggers, logger]
            if trainer.is_global_zero:
                self._open(trainer, logger)
        if self._run is not None and logger is not None:
            self._release = guard_logger(logger, partial(self._attempt, logger))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the settings down, so that a fit that fails in its sanity check has them too."""
        self._write_settings(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them once more: now the batch size is known, and a tuned learning rate is in place."""
        self._write_settings(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the run as failed."""
        if self._release is not None:  # else this raised before our setup, and the run is that of an earlier fit
            self._let_go()
            self._finish(1)
            # W&B raises on logging to a finished run.
            if (logger := _wandb_logger(trainer)) is not None:
                mute_logger(logger)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put the logger's methods back."""
        if stage == "fit" and trainer.global_step:
            mark_trained(pl_module)
        if self._release is not None:
            # Lightning finalizes the loggers after this hook: done here, guarded, its own call finds nothing to do.
            if (logger := _wandb_logger(trainer)) is not None:
                logger.finalize("success")
            self._let_go()
            if self._run is not None and not self._lost and self._at_exit is None:
                # W&B would end every open run with the exit code of the process, which a later crash may set.
                self._at_exit = atexit.register(partial(_end, self._run, self.page))
            if stage == "fit" and self._run is not None:
                _write_page(self._run, self.page)

    def _new_logger(self, trainer: L.Trainer) -> WandbLogger:
        import wandb

        return WandbLogger(
            project=os.environ.get("WANDB_PROJECT", "lightning_trainingkit"),
            save_dir=trainer.default_root_dir,
            group=self.group,
            job_type=self.job_type,
            name=self.name,
            # Not `offline=True`, which sets WANDB_MODE for the whole process.
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(quiet=True),
        )

    def _open(self, trainer: L.Trainer, logger: WandbLogger) -> None:
        self._finish(0)
        self._lost = False
        self._logger = logger
        self._run = unused_run(logger)
        if self._run is not None:
            self._check(self._run)
            self._attempt(logger, partial(take_run, logger, self._run))
        else:
            job_type = None if self.job_type == "train" else self.job_type
            self._run = self._attempt(
                logger, partial(open_run, logger, group=self.group, job_type=job_type, name=self.name)
            )
        if self._run is not None:
            self._attempt(logger, partial(self._describe, trainer, self._run))
            if not self._run.disabled:
                self._heartbeat = Heartbeat(_folder(self._run))

    def _check(self, run: "Run") -> None:
        asked_for = (("group", self.group, None), ("job_type", self.job_type, "train"), ("name", self.name, None))
        for name, asked, default in asked_for:
            found = getattr(run, name)
            if asked not in (default, found):
                raise ValueError(
                    f"`{name}` must be that of the Trainer's own WandbLogger, whose run has {found!r}, got {asked!r}. "
                    f"Pass it to the logger: `WandbLogger({name}={asked!r})`."
                )

    def _describe(self, trainer: L.Trainer, run: "Run") -> None:
        run.tags = tuple(dict.fromkeys((*(run.tags or ()), *self.tags)))
        monitors = {
            callback.monitor: callback.mode
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor
        }
        # As WandbLogger does for the runs that it opens itself.
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        for name, mode in (_BEST | monitors | (self.best or {})).items():
            run.define_metric(name, summary=mode, step_metric="trainer/global_step")

    def _write_settings(self, trainer: L.Trainer) -> None:
        logger = _wandb_logger(trainer)
        if self._release is not None and logger is not None:
            self._attempt(logger, lambda: logger.log_hyperparams(settings_of(trainer)))

    def _attempt(self, logger: WandbLogger, call: Callable[[], Any]) -> Any:
        """Call W&B; after a failure, never again in this fit."""
        if self._lost:
            return None
        try:
            return call()
        except Exception as error:
            self._lost = True
            mute_logger(logger)
            _warn(error)

    def _finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
            self._at_exit = None
        if run is not None:
            try:
                run.finish(exit_code=1 if self._lost else exit_code)
            except Exception as error:
                if not self._lost:
                    _warn(error)
            _write_page(run, self.page)
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def _let_go(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None


def _check_tags(tags: Sequence[str]) -> None:
    for tag in (hide(str(tag)) for tag in tags):
        if not 1 <= len(tag) <= 64:
            raise ValueError(
                f"`tags` must have 1 to 64 characters each, got {len(tag)} in {tag!r}. Change it: W&B would drop all."
            )


def _end(run: "Run", page: str | None) -> None:
    with suppress(Exception):
        run.finish(exit_code=0)
        _write_page(run, page)


def _folder(run: "Run") -> Path:
    return Path(run.dir).parent


def _write_page(run: "Run", page: str | None) -> None:
    """Write the command center of all runs beside ``run``; training goes on where that fails."""
    if page is not None and not run.disabled:
        from lightning_trainingkit.dashboards.local import write_center

        try:
            write_center(Path(page), [_folder(run).parent])
        except Exception as error:
            rank_zero_warn(f"The page {page} was not written: {error}")


def _wandb_logger(trainer: L.Trainer) -> WandbLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)


def _warn(error: Exception) -> None:
    rank_zero_warn(f"W&B failed with {type(error).__name__}: {error}. Training goes on without W&B until the next fit.")
