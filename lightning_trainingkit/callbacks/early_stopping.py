"""Stop when validation no longer improves, and restore the best weights."""

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_trainingkit._lightning import EarlyStopping as LightningEarlyStopping
from lightning_trainingkit._lightning import EarlyStoppingReason, L, ModelCheckpoint, refuse_other_package
from lightning_trainingkit.callbacks._best_weights import BestWeights, take_mode
from lightning_trainingkit.callbacks._broadcast import mean_over_ranks
from lightning_trainingkit.callbacks._lightning import (
    average_waits,
    checks_each_epoch,
    fast_dev_run,
    just_logged,
    logged_in_sanity_check,
    may_stop,
)
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.improvement import is_better, smooth, worst_value
from lightning_trainingkit.functional.metric_name import is_missing
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["EarlyStopping"]


class EarlyStopping(LightningEarlyStopping):
    """Stop training when a metric stops improving, and restore the weights with the best metric.

    Lightning's callback with its name, arguments and state, and in addition:

    - **Best weights** come back at every normal end, also of a resumed run. Their file stays in ``checkpoints/`` of the
      log folder. Of several such callbacks the last in the list decides.
    - **Counters** begin at 0 with each fit. An improvement cancels a stop that ``min_epochs`` postponed.
    - **Ranks**: the metric is averaged over ranks.
    - **Averaged weights** (``EMAWeightAveraging``): no check counts before the average has begun.
    - **StochasticWeightAveraging**: pass ``restore_best=False``, since Lightning does not validate its average.
    - **Resume** from the newest checkpoint: older ones name files of best weights that are gone. A metric that training
      logs counts only for epochs that the process ran from their first batch.

    During the fit only ``trainer.should_stop`` changes. README.md tells more.

    Args:
        monitor: Name of a logged metric.
        min_delta: Smallest change that counts as an improvement, in units of the metric, not negative.
        patience: Number of checks without improvement after which training stops. Each validation is followed by one
            check.
        verbose: Log each improvement.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is better. None means ``"min"``, and is an error if
            the name of ``monitor`` says score, such as an accuracy.
        strict: Whether a missing metric is an error.
        check_finite: Stop when the metric becomes NaN or infinite.
        stopping_threshold: Stop as soon as the metric is better than this value.
        divergence_threshold: Stop as soon as the metric is worse than this value.
        check_on_train_epoch_end: Check at the end of the training epoch instead of the validation. None does so for a
            metric that validation does not log.
        log_rank_zero_only: Log on rank 0 alone.
        restore_best: Restore the best weights at the end.
        start_from_epoch: First epoch (from 0) that counts. Before it, only a non-finite metric stops the training. The
            best weights are tracked from epoch 0.
        smoothing: Weight ``s`` in [0, 1) of the past in the judged average, ``a_t = s a_{t-1} + (1 - s) v_t``, for a
            noisy metric. The best weights belong to the best raw value.

    Raises:
        TypeError: If an argument that must be a number is none.
        ValueError: If a number is out of range, ``mode`` is needed and not given, or a checkpoint callback judges the
            same metric by another mode.
        RuntimeError: If ``monitor`` is not logged. The error lists the logged metrics. It comes after the sanity check,
            unless a word of the name begins with ``train``, a logged name ends like it, or
            ``check_on_train_epoch_end=True``.

    Example:
        >>> import lightning as L
        >>> callback = EarlyStopping("val/loss", patience=5, start_from_epoch=3)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)

    References:
        Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade, 1998.
    """

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: Literal["min", "max"] | None = None,
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
        restore_best: bool = True,
        start_from_epoch: int = 0,
        smoothing: float = 0.0,
    ) -> None:
        min_delta = _check.number("min_delta", min_delta, "0 counts each improvement.", least=0)
        patience = _check.integer("patience", patience, "It counts checks.", least=0)
        for name, threshold in (("stopping", stopping_threshold), ("divergence", divergence_threshold)):
            if threshold is not None:
                _check.number(f"{name}_threshold", threshold, "None sets no threshold.")
        _check.flag("restore_best", restore_best)
        _check.number("smoothing", smoothing, "0 judges the metric as it is.", least=0, below=1)
        _check.integer("start_from_epoch", start_from_epoch, "0 counts from the start.", least=0)
        super().__init__(
            monitor=monitor,
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            mode="min" if mode is None else mode,  # refuses all but min and max
            strict=strict,
            check_finite=check_finite,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
            check_on_train_epoch_end=check_on_train_epoch_end,
            log_rank_zero_only=log_rank_zero_only,
        )
        take_mode("EarlyStopping", monitor, mode)  # refuses a score without a mode
        self.restore_best = restore_best
        self.start_from_epoch = start_from_epoch
        self.smoothing = smoothing
        self._forget()

    def _forget(self) -> None:
        self.wait_count = 0
        self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None
        self.best_score = worst_value(self.mode)  # the best raw value
        # The reference of an improvement: smoothed, counted, beyond min_delta.
        self._judged_best = worst_value(self.mode)
        self._average: Tensor | None = None
        self._weights = BestWeights("EarlyStopping", self.monitor, self.mode)
        self._stop_asked = False
        self._validation_logs_it = False
        self._whole_epoch = False  # whether this process ran the epoch from its first batch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state for each fit, before a checkpoint's state is loaded."""
        refuse_other_package(self, trainer)
        if stage == "fit":
            self._forget()

    @cached_property
    def state_key(self) -> str:
        """Lightning's key, computed once: Lightning asks for it at each hook of each step."""
        return super().state_key

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, the smoothed values, whether a stop is asked for, and the paths of the best weights."""
        return super().state_dict() | {
            "judged_best": self._judged_best,
            "average": self._average,
            "stop_asked": self._stop_asked,
            **self._weights.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this class or of Lightning's EarlyStopping."""
        super().load_state_dict(state_dict)
        self._judged_best = state_dict.get("judged_best", self.best_score)
        self._average = state_dict.get("average")
        self._stop_asked = state_dict.get("stop_asked", False)
        self._weights.load(state_dict)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note that the run resumed. A learning-rate finder also loads a checkpoint, with step 0."""
        self._weights.resumed |= checkpoint["global_step"] > 0

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give the file of the best weights its final name, for a run that resumes from this checkpoint."""
        self._weights.name(trainer)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise before training if validation logs other metrics and training cannot log ``monitor``."""
        logged = logged_in_sanity_check(trainer)
        if self.strict and not self._check_on_train_epoch_end and is_missing(self.monitor, logged, training=True):
            raise RuntimeError(
                f"`monitor` must be a logged metric, got {self.monitor!r}. Logged are: {', '.join(sorted(logged))}. "
                "A metric that training logs needs `check_on_train_epoch_end=True`, one that the sanity check leaves "
                "out Trainer(num_sanity_val_steps=0)."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the best weights can be kept and, after a resume, still exist."""
        self._whole_epoch = False  # a learning-rate finder has trained before
        for callback in trainer.checkpoint_callbacks:
            if (
                isinstance(callback, ModelCheckpoint)
                and callback.monitor == self.monitor
                and callback.mode != self.mode
            ):
                raise ValueError(
                    f"`mode` must be the same for all that monitor {self.monitor}, got {self.mode!r} here and "
                    f'{callback.mode!r} in {type(callback).__name__}. An accuracy needs "max", a loss "min".'
                )
        if self.restore_best and not fast_dev_run(trainer) and not self._weights.start(trainer):
            self.best_score = worst_value(self.mode)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note that this process runs the epoch from its first batch."""
        self._whole_epoch |= batch_idx == 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check a metric that validation logs."""
        if self._should_skip_check(trainer):
            return
        self._validation_logs_it = self.monitor in just_logged(trainer)
        here = self._check_on_train_epoch_end is False or not checks_each_epoch(trainer)
        if not self._check_on_train_epoch_end and (self._validation_logs_it or (here and self._whole_epoch)):
            self._run_early_stopping_check(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Stop as soon as ``min_steps`` allows a requested stop."""
        if self._stop_asked:
            self._stop_if_allowed(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check a metric that training logs, and stop as soon as ``min_epochs`` allows it."""
        # Resumed at the end of a validation, Lightning ends the epoch again without a batch.
        whole, self._whole_epoch = self._whole_epoch, False
        each_epoch = checks_each_epoch(trainer) or not trainer.enable_validation
        by_default = self._check_on_train_epoch_end is None and not self._validation_logs_it and each_epoch
        here = self._check_on_train_epoch_end or by_default
        if here and (whole or self._validation_logs_it) and not self._should_skip_check(trainer):
            self._run_early_stopping_check(trainer)
        self._stop_if_allowed(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the best weights after other callbacks have set theirs, also if no step was left to train."""
        mark_trained(pl_module)
        if self.restore_best and not fast_dev_run(trainer):
            self._weights.finish(trainer)
            self._weights.restore(trainer)

    def _run_early_stopping_check(self, trainer: L.Trainer) -> None:
        logs = trainer.callback_metrics
        if fast_dev_run(trainer) or not self._validate_condition_metric(logs):
            return
        if average_waits(trainer, f"EarlyStopping: {self.monitor}"):
            return
        current = mean_over_ranks(trainer, logs[self.monitor].squeeze())
        if is_better(current, self.best_score, self.mode):
            in_a_fit = trainer.lightning_module is not None  # Lightning's own tests check outside of a fit
            self._weights.replace(trainer, keep=self.restore_best and in_a_fit)
            self.best_score = current
        asked, reason = False, None
        if trainer.current_epoch >= self.start_from_epoch or (self.check_finite and not torch.isfinite(current)):
            asked, reason = self._evaluate_stopping_criteria(current)
        self._stop_asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if self._stop_asked:
            self.stopping_reason_message = reason
        if reason and self.verbose:
            self._log_info(trainer, reason, self.log_rank_zero_only)
        self._stop_if_allowed(trainer)

    def _stop_if_allowed(self, trainer: L.Trainer) -> None:
        if self._stop_asked and not trainer.should_stop and may_stop(trainer):
            trainer.should_stop = True
            self.stopped_epoch = trainer.current_epoch

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        """Apply Lightning's criteria to the smoothed value, with the comparison in its divergence message corrected."""
        judged = current
        if torch.isfinite(current):
            self._average = judged = smooth(self._average, current, self.smoothing)
        raw_best, self.best_score = self.best_score, self._judged_best
        asked, reason = super()._evaluate_stopping_criteria(judged)
        self._judged_best, self.best_score = self.best_score, raw_best
        if not asked:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        elif self.stopping_reason is EarlyStoppingReason.DIVERGENCE_THRESHOLD:
            reason = (
                f"Divergence threshold reached: {self.monitor} = {judged} is worse than {self.divergence_threshold}."
                " Signaling Trainer to stop."
            )
        return asked, reason
