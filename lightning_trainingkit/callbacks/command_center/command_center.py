"""Keep a record of every fit with Weights & Biases."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning_trainingkit._lightning import (
    L,
    TrainerFn,
    WandbLogger,
    rank_zero_info,
    rank_zero_warn,
    refuse_other_package,
)
from lightning_trainingkit.callbacks._lightning import refuse_twice
from lightning_trainingkit.callbacks.command_center._lightning import (
    guard_logger,
    monitored_only,
    mute_logger,
    open_run,
    take_run,
    unused_run,
)
from lightning_trainingkit.callbacks.command_center.arguments import check_arguments
from lightning_trainingkit.callbacks.command_center.best_values import BestValues, goals_of
from lightning_trainingkit.callbacks.command_center.ending import OpenRun
from lightning_trainingkit.callbacks.command_center.opening import (
    check_run,
    describe,
    find_logger,
    new_logger,
    note_other_loggers,
)
from lightning_trainingkit.callbacks.command_center.settings import settings_of
from lightning_trainingkit.dashboards.printable import printable
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["CommandCenter"]

_STATE = "command_center_best_values"  # in a checkpoint


class CommandCenter(L.Callback):
    """Record each fit as a separate W&B run, offline and without an account. Training is unchanged.

    - **Config**: the hyperparameters, the settings of trainer, optimizers and callbacks, and the versions.
    - **Summary**: the best value of each monitored metric.
    - **End**: the run stays open after the fit, so that ``trainer.test`` logs into it. It ends with ``finish``, with
      this callback's next fit or with the process. A fit that raises ends its run as failed.
    - **Logger**: the Trainer's ``WandbLogger``. Where there is none, the callback appends one to ``trainer.loggers``;
      the mode is ``WANDB_MODE`` or offline, the folder ``trainer.default_root_dir``.
    - **W&B fails**: one warning, and training goes on without W&B until the next fit.
    - **Secrets** become ``***`` in names, tags, notes and config.

    ``validate`` and ``test`` before any fit, ``fast_dev_run`` and ``barebones`` are not recorded. README.md in this
    folder tells more.

    Args:
        group: Name of the experiment whose fits W&B shows together: a grid, the folds of a cross-validation, an
            ensemble.
        job_type: The fit's part in its group, such as ``"train"`` or ``"ensemble"``.
        tags: Words to find the run by.
        name: What varies between the runs of the group, such as ``"lr=3e-4"``; by default W&B names the run.
        best: Metric name to ``"min"`` or ``"max"``: which end is the best. Overrules the monitors of early stopping and
            checkpoint callbacks, and these overrule ``{"val/acc": "max", "val/loss": "min"}``.
        page: File for the command center, one HTML page of all runs that W&B keeps in this run's folder. Written at
            the end of each fit and, with everything, when the run ends. None writes none.

    Raises:
        ValueError: If a mode in ``best`` is not ``"min"`` or ``"max"``, if a tag is empty or longer than 64
            characters, or if a Trainer has two of this callback. If the Trainer's own ``WandbLogger`` has started its
            run with another group, job type or name.
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
        check_arguments(tags, best, page)
        self.group = group
        self.job_type = job_type
        self.tags = tags
        self.name = name
        self.best = best
        self.page = page
        self._best_values = BestValues({})
        self._run: OpenRun | None = None  # of the latest fit, on rank 0, until it is finished
        self._logger: WandbLogger | None = None  # the logger of that run
        self._lost = False
        self._release: Callable[[], None] | None = None  # set between setup and teardown

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the run, its logger and the guard, which belong to this process."""
        return {**vars(self), **dict.fromkeys(("_run", "_logger", "_release"))}

    def finish(self, exit_code: int = 0) -> None:
        """End the latest fit's run now, for processes that run many fits. Later calls of ``log`` are ignored.

        Args:
            exit_code: 0 marks the run as finished, any other number as failed.
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
        logger = find_logger(trainer)
        if stage == "fit":
            self._best_values = BestValues(goals_of(trainer, self.best))
            if logger is None:
                logger = new_logger(trainer, self.group, self.job_type, self.name)
                trainer.loggers = [*trainer.loggers, logger]
            if trainer.is_global_zero:
                self._open(trainer, logger)
        elif self._run is None and trainer.is_global_zero:
            rank_zero_info(f"CommandCenter has no open run of a fit: this {stage} is not recorded.")
        if self._run is not None and logger is not None:
            self._release = guard_logger(logger, partial(self._attempt, logger))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the settings to the run before the sanity check, which may fail."""
        self._write_settings(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the settings again: the batch size and a tuned learning rate are known now."""
        self._write_settings(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write best values to the summary for metrics whose monitored name W&B does not get."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        best = self._best_values.update(monitored_only(trainer))
        run, logger = self._run, self._logger
        if best and self._release is not None and run is not None and logger is not None:
            self._attempt(logger, lambda: run.run.summary.update(best))

    # Not `state_dict`: Lightning warns where a run that has state in a checkpoint is resumed without this callback.
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the best values that W&B can't keep."""
        if self._best_values.values:
            checkpoint[_STATE] = dict(self._best_values.values)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue from the best values in the checkpoint."""
        self._best_values.values = dict(checkpoint.get(_STATE, {}))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the run as failed."""
        if self._release is not None:  # otherwise this raised before our setup, and the run belongs to an earlier fit
            self._let_go()
            self._finish(1)
            # W&B raises on logging to a finished run.
            if (logger := find_logger(trainer)) is not None:
                mute_logger(logger)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the logger's methods, and write the page after a fit."""
        if stage == "fit" and trainer.global_step:
            mark_trained(pl_module)
        if self._release is not None:
            # Lightning finalizes the loggers after this hook: done here, guarded, its own call finds nothing to do.
            if (logger := find_logger(trainer)) is not None:
                logger.finalize("success")
            self._let_go()
            if self._run is not None and not self._lost:
                self._run.leave_open()
            if self._run is not None and stage == "fit":
                self._run.write_page()

    def _open(self, trainer: L.Trainer, logger: WandbLogger) -> None:
        self._finish(0)
        self._lost = False
        self._logger = logger
        run = unused_run(logger)
        if run is not None:
            check_run(run, self.group, self.job_type, self.name)
            self._attempt(logger, partial(take_run, logger, run))
        else:
            job_type = None if self.job_type == "train" else self.job_type
            run = self._attempt(logger, partial(open_run, logger, group=self.group, job_type=job_type, name=self.name))
        if run is not None:
            self._attempt(logger, partial(describe, run, self.tags, self._best_values.goals))
            self._run = OpenRun(run, self.page)
            if not run.disabled:
                note_other_loggers(trainer, self._run.folder)

    def _write_settings(self, trainer: L.Trainer) -> None:
        logger = find_logger(trainer)
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
        if run is not None:
            try:
                run.end(1 if self._lost else exit_code)
            except Exception as error:
                if not self._lost:
                    _warn(error)

    def _let_go(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None


def _warn(error: Exception) -> None:
    said = f"W&B failed with {type(error).__name__}: {error}. Training goes on without W&B until the next fit."
    rank_zero_warn(printable(said))
