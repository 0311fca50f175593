"""Keep the snapshot with the best validation metric, and find it again in any process."""

from collections.abc import Collection
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4
from weakref import proxy

import torch
from lightning_utilities.core.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from lightning_trainingkit._files import check_no_folder, claim, put_in_place, sweep, temporary
from lightning_trainingkit._lightning import (
    AsyncCheckpointIO,
    L,
    ModelCheckpoint,
    TrainerFn,
    WeightAveraging,
    rank_zero_info,
    refuse_other_package,
)
from lightning_trainingkit._locks import Lock
from lightning_trainingkit.callbacks._best_weights import restore_weights, take_mode
from lightning_trainingkit.callbacks._broadcast import mean_over_ranks
from lightning_trainingkit.callbacks._lightning import fast_dev_run, logged_in_sanity_check
from lightning_trainingkit.callbacks.checkpointing.own_folder import hold_folder
from lightning_trainingkit.callbacks.checkpointing.relocated_state import bring_best, relocated_state
from lightning_trainingkit.callbacks.checkpointing.repeated_epoch_end import explain_repeated_epoch_end
from lightning_trainingkit.callbacks.checkpointing.safe_hyperparameters import say_left_out, without_unsafe
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.improvement import worst_value
from lightning_trainingkit.functional.metric_name import is_missing
from lightning_trainingkit.nn.weights.checkpoint import MANIFEST, write_manifest
from lightning_trainingkit.nn.weights.read_checkpoint import RUN, check_run
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["BestCheckpoint"]


class BestCheckpoint(ModelCheckpoint):
    """Save the snapshots with the best validation metric, and a manifest that names the best for any later process.

    Lightning's ``ModelCheckpoint``, and in addition:

    - **Whole files**: a file appears whole or not at all.
    - **Manifest**: ``best.json`` beside the checkpoints names the best one, for ``best_path(dirpath)`` and
      ``load_best(module, dirpath)``.
    - **Resume**: files are saved at the end of the validation, from where a resume can be exact (see ``EpochSeed``).
      A replaced checkpoint is deleted at the next validation, so that a killed run can always resume.
    - **NaN** and infinity are never best.
    - **Averaged weights** (``EMAWeightAveraging``): the files hold the averaged weights, which validation used.
      ``trainer.test(ckpt_path="best")`` tests them.

    Only ``restore=True`` changes the module, after training. README.md in this folder tells more.

    Args:
        monitor: Name of a logged metric.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is better. None means ``"min"``, and is an error if
            the name of ``monitor`` says score, such as an accuracy.
        dirpath: Folder to write to; by default Lightning's ``checkpoints`` in the logger's folder.
        filename: Name pattern as in ``ModelCheckpoint``, ``"{epoch}-{step}"`` by default.
        save_top_k: Number of best snapshots to keep; -1 keeps all.
        save_last: Also write ``last.ckpt`` at every save, best or not, to resume from. ``"link"`` links ``last.ckpt``
            to the newest of the best snapshots instead.
        restore: Put the best weights back into the module at the end of the fit.
        save_weights_only: Save no optimizer and callback state. No run can resume from such files.
        every_n_epochs: Save after the validation of every n-th epoch.
        every_n_train_steps: Save every n-th step instead.
        train_time_interval: Save after each such interval instead.
        save_on_train_epoch_end: Save at the end of the training epoch instead, for a metric that training logs.
        save_on_exception: Also save when training raises.
        auto_insert_metric_name: Put the metrics' names before their values in file names.
        enable_version_counter: Add ``-v1``, ... to a name that is taken.
        verbose: Log each save.

    Raises:
        TypeError: If an argument that must be a number is none.
        ValueError: If ``mode`` or a number is wrong. If ``monitor`` is not logged (the error lists the logged metrics)
            or always NaN. If another ``BestCheckpoint`` or another live run writes to the same folder.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[BestCheckpoint("val/acc", "max", restore=True)], logger=False)
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"] | None = None,
        *,
        dirpath: str | None = None,
        filename: str | None = None,
        save_top_k: int = 1,
        save_last: bool | Literal["link"] | None = None,
        restore: bool = False,
        save_weights_only: bool = False,
        every_n_epochs: int | None = None,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        save_on_train_epoch_end: bool | None = None,
        save_on_exception: bool = False,
        auto_insert_metric_name: bool = True,
        enable_version_counter: bool = True,
        verbose: bool = False,
    ) -> None:
        save_top_k = _check.integer("save_top_k", save_top_k, "1 keeps the best one, -1 all.", least=-1)
        for name, every in (("every_n_epochs", every_n_epochs), ("every_n_train_steps", every_n_train_steps)):
            if every is not None:
                _check.integer(name, every, "0 never saves by it.", least=0)
        if save_top_k == 0:
            raise ValueError(
                f"`save_top_k` must be positive, or -1 for all, got {save_top_k}. To save none, leave the callback out."
            )
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            verbose=verbose,
            save_last=save_last,
            save_top_k=save_top_k,
            save_on_exception=save_on_exception,
            save_weights_only=save_weights_only,
            mode=take_mode("BestCheckpoint", monitor, mode),
            auto_insert_metric_name=auto_insert_metric_name,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=save_on_train_epoch_end,
            enable_version_counter=enable_version_counter,
        )
        self.restore = restore
        self._lock: Lock | None = None  # on the folder, during a fit
        self._forget()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state for each fit, before a checkpoint's state is loaded, and delete files of a killed fit."""
        refuse_other_package(self, trainer)
        super().setup(trainer, pl_module, stage)
        self._in_fit = False
        if stage != "fit":
            return
        if "://" in str(self.dirpath):
            raise ValueError(
                f"`dirpath` must be a local folder, where a file can be renamed, got {self.dirpath}. "
                "Lightning's `ModelCheckpoint` writes to remote storage."
            )
        say_left_out(trainer)
        averages = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
        if self.save_weights_only and averages:
            raise ValueError(
                "`save_weights_only` must be False beside a callback that averages weights, got True. Lightning leaves "
                "the averaged weights, which validation uses, out of such files."
            )
        self._forget()
        self._run = trainer.strategy.broadcast(uuid4().hex)
        if fast_dev_run(trainer):
            return
        self._in_fit = True
        self._lock = hold_folder(trainer, str(self.dirpath))
        try:
            check_no_folder(Path(str(self.dirpath)) / MANIFEST)
        except IsADirectoryError as error:
            raise ValueError(f"`dirpath` can't be used: {error}") from None
        if trainer.is_global_zero:
            sweep(str(self.dirpath))

    def _forget(self) -> None:
        self._lock = None
        self._run = ""  # token of this run, or of the run before the resume
        self.best_k_models = {}
        self.best_model_path = self.kth_best_model_path = self.last_model_path = ""
        self.best_model_score = self.current_score = None
        self.kth_value = worst_value(self.mode)
        self._last_global_step_saved = 0
        self._last_checkpoint_saved = ""
        self._outdated: list[str] = []
        self._positions: dict[str, list[int]] = {}
        self._named: set[str] = set()
        self._saving = False
        self._saw_nan = False
        self._resumed_step: int | None = None
        self._in_fit = False

    @cached_property
    def state_key(self) -> str:
        """Lightning's key, computed once: Lightning asks for it at each hook of each step."""
        return super().state_key

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, the epoch and step of each snapshot, the files to delete next, and the run's token."""
        return super().state_dict() | {
            "positions": dict(self._positions),
            "outdated": list(self._outdated),
            RUN: self._run,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state. If the folder was moved since, find its files by their names in the new folder."""
        if state_dict["dirpath"] != self.dirpath:
            if self._in_fit:
                bring_best(state_dict, str(self.dirpath))
            state_dict = relocated_state(state_dict, str(self.dirpath))
        super().load_state_dict(state_dict)
        self._positions = dict(state_dict.get("positions", {}))
        self._outdated = list(state_dict.get("outdated", []))
        self._run = state_dict.get(RUN, self._run)
        folder = Path(str(self.dirpath))
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        if first and self._in_fit and Path(self.best_model_path).parent == folder and not (folder / MANIFEST).exists():
            self._write_manifest()  # the new folder of a resumed run has none yet

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the files that another callback's checkpoint names, for a run that resumes from it."""
        if not self._saving:
            self._named = {*self.best_k_models, self.best_model_path}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the averaged weights: outside a fit ``WeightAveraging`` replaces them by the raw weights."""
        # A learning-rate finder loads a checkpoint of step 0.
        self._resumed_step = checkpoint.get("global_step") or None
        if trainer.state.fn != TrainerFn.FITTING and str(trainer.ckpt_path) == self.best_model_path:
            check_run(self.best_model_path, checkpoint, self._run)
        if trainer.state.fn != TrainerFn.FITTING and "current_model_state" in checkpoint:
            trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise before training if the sanity check logs metrics but not ``monitor``."""
        logged = logged_in_sanity_check(trainer)
        in_training = self._save_on_train_epoch_end or self._every_n_train_steps
        if not in_training and is_missing(str(self.monitor), logged, training=False):
            self._check_monitor(logged)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a second callback that writes the same manifest."""
        super().on_train_start(trainer, pl_module)
        others = [callback for callback in trainer.checkpoint_callbacks if callback is not self]
        if any(isinstance(callback, BestCheckpoint) and callback.dirpath == self.dirpath for callback in others):
            raise ValueError(
                f"`dirpath` must differ between two BestCheckpoints, got {self.dirpath} twice. Give each its own."
            )
        self._drop_missing(trainer)

    def on_train_batch_end(self, *args: Any) -> None:
        """Save by steps or by time if asked. Otherwise skip Lightning's hook, which costs time at each step."""
        if self._every_n_train_steps or self._train_time_interval is not None:
            super().on_train_batch_end(*args)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save if asked, explain an exception that a resume caused, and release the folder."""
        try:
            explain_repeated_epoch_end(trainer, exception, self._resumed_step)
            super().on_exception(trainer, pl_module, exception)
        finally:
            self._lock = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Delete the last replaced files, and raise if no snapshot could be best."""
        super().on_train_end(trainer, pl_module)
        mark_trained(pl_module)
        self._named = set()
        self._sweep(trainer)
        if self._saw_nan and not self.best_model_path:
            raise ValueError(
                f"`{self.monitor}` must be a number for a snapshot to be best, got NaN or infinity each time. "
                "A smaller learning rate or `InitOverride` may keep the loss finite."
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the best weights if asked, after other callbacks have set theirs, and print the best epoch."""
        if not self.best_model_path or fast_dev_run(trainer):
            return
        if self.restore:
            restore_weights(trainer, self.best_model_path, self._run)
        epoch, _ = self._positions.get(self.best_model_path, ("?", "?"))
        rank_zero_info(
            f"BestCheckpoint: {'restored' if self.restore else 'kept'} the weights of epoch {epoch}, the best by "
            f"{self.monitor} (mode={self.mode!r}): {self.best_model_path}"
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Release the folder."""
        self._lock = None

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Whether ``current`` is among the best values. NaN and infinity never are."""
        if current is None or torch.isfinite(current):
            return super().check_monitor_top_k(trainer, current)
        if not self._saw_nan:
            rank_zero_warn(f"{self.monitor} is {current} after epoch {trainer.current_epoch}, which can't be best.")
        self._saw_nan = True
        return False

    def _should_save_on_train_epoch_end(self, trainer: L.Trainer) -> bool:
        if self._save_on_train_epoch_end is None and trainer.enable_validation:
            return False
        return super()._should_save_on_train_epoch_end(trainer)

    def _monitor_candidates(self, trainer: L.Trainer) -> dict[str, Tensor]:
        candidates = super()._monitor_candidates(trainer)
        if self.monitor in candidates:
            candidates[self.monitor] = mean_over_ranks(trainer, candidates[self.monitor])
        return candidates

    def _check_monitor(self, metrics: Collection[str]) -> None:
        if self.monitor not in metrics:
            logged = ", ".join(sorted(metrics)) or "none"
            raise ValueError(
                f"`monitor` must be a metric that was logged, got {self.monitor!r}. Logged: {logged}. "
                "For a metric of the training epoch pass `save_on_train_epoch_end=True`, for one that the sanity check "
                "leaves out Trainer(num_sanity_val_steps=0)."
            )

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self._check_monitor(monitor_candidates)
        self._sweep(trainer)
        known = set(self.best_k_models)
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        if self.save_last is True:  # Lightning's `last` is the newest of the best: an old one to resume from
            self._last_global_step_saved = trainer.global_step
        if trainer.is_global_zero and set(self.best_k_models) != known:
            self._write_manifest()

    def _write_manifest(self) -> None:
        write_manifest(str(self.dirpath), self.monitor or "", self.mode, self.best_k_models, self._positions, self._run)

    def file_exists(self, filepath: Any, trainer: L.Trainer) -> bool:
        """Whether a file or another run uses the name. On a file system without locks a free name is reserved."""
        if super().file_exists(filepath, trainer):
            return True
        taken = trainer.is_global_zero and self._lock is None and not claim(filepath)
        return trainer.strategy.reduce_boolean_decision(taken, all=False)

    def _get_metric_interpolated_filepath_name(
        self, monitor_candidates: dict[str, Tensor], trainer: L.Trainer, del_filepath: str | None = None
    ) -> str:
        # A metric in the name that is not synchronised would give each rank a different name.
        name = super()._get_metric_interpolated_filepath_name(monitor_candidates, trainer, del_filepath)
        return str(trainer.strategy.broadcast(name))

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        self._saving = True
        try:
            with without_unsafe(trainer):
                self._save_whole(trainer, filepath)
        finally:
            self._saving = False

    def _save_whole(self, trainer: L.Trainer, filepath: str) -> None:
        if filepath in self.best_k_models:
            self._positions[filepath] = [trainer.current_epoch, trainer.global_step]
        if isinstance(trainer.strategy.checkpoint_io, AsyncCheckpointIO):  # writes later
            super()._save_checkpoint(trainer, filepath)
        else:
            written = trainer.strategy.broadcast(str(temporary(filepath)))
            trainer.save_checkpoint(written, self.save_weights_only)
            if trainer.is_global_zero:
                put_in_place(filepath, Path(written))
            trainer.strategy.barrier()
            self._last_global_step_saved = trainer.global_step
            self._last_checkpoint_saved = filepath
            if trainer.is_global_zero:
                for logger in trainer.loggers:
                    logger.after_save_checkpoint(proxy(self))

    def _remove_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        self._outdated.append(filepath)  # deleted at the next validation: the newest checkpoint still names the file

    def _sweep(self, trainer: L.Trainer) -> None:
        kept = {*self.best_k_models, self.best_model_path, self.last_model_path}
        for filepath in self._outdated:
            if filepath not in kept | self._named:
                self._positions.pop(filepath, None)
                super()._remove_checkpoint(trainer, filepath)
        self._outdated = [filepath for filepath in self._outdated if filepath in self._named]

    def _drop_missing(self, trainer: L.Trainer) -> None:
        """Forget best files that are gone: a run may resume from a checkpoint older than their deletion."""
        missing = [path for path in self.best_k_models if not self._fs.exists(path)] if trainer.is_global_zero else []
        missing = trainer.strategy.broadcast(missing)
        if not missing:
            return
        rank_zero_warn(
            f"Best snapshots of before the resume are gone: {', '.join(missing)}. The best of the others counts."
        )
        choose = min if self.mode == "min" else max
        self.best_k_models = {path: score for path, score in self.best_k_models.items() if path not in missing}
        scores = self.best_k_models
        self.best_model_path = choose(scores, key=scores.__getitem__, default="")
        self.best_model_score = scores.get(self.best_model_path)
