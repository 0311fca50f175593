"""Freeze and unfreeze layers on a schedule."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import L, TrainerFn, rank_zero_info, rank_zero_warn, refuse_other_package
from lightning_trainingkit.callbacks._best_weights import take_mode
from lightning_trainingkit.callbacks._lightning import (
    fast_dev_run,
    just_logged,
    logged_by_step,
    logged_in_sanity_check,
    refuse_sharding,
    refuse_swa,
    restart_averages,
    wrap_again,
)
from lightning_trainingkit.callbacks.transfer.feature_caching import FeatureCaching, targets
from lightning_trainingkit.callbacks.transfer.phase_monitor import PhaseMonitor
from lightning_trainingkit.callbacks.transfer.step_rates import StepRates
from lightning_trainingkit.callbacks.transfer.transfer_plan import TransferPlan
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.improvement import worst_value
from lightning_trainingkit.functional.metric_name import is_missing
from lightning_trainingkit.functional.phases import read_phases
from lightning_trainingkit.nn.transfer.boundary import enclosing_parts
from lightning_trainingkit.nn.transfer.freezing import ParameterFreezer
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["TransferLearning"]


class TransferLearning(L.Callback):
    """Fine-tune in phases: the last layer first, then more of the model at lower rates.

    All other layers are frozen: no gradients, no optimizer state, BatchNorm and dropout in eval mode. The optimizer
    must hold all parameters from the start. After the fit, flags and modes are restored. A phase is a dict:

    - **train**: ``all``, ``head`` (the last layers), ``last n`` (the head and up to ``n`` blocks before it), `fnmatch`
      patterns over module or parameter names, or a list of these.
    - **start**: first epoch (an integer, from 0) or share of the training (below 1).
    - **patience**, in place of ``start``: checks of ``monitor`` without improvement in the phase before.
    - **lr_scale**: factor on the learning rate, or a dict of selectors to factors, which hold without ``lr_decay``.

    The first phase starts at once. README.md in this folder tells more.

    Args:
        phases: ``small_data``: the last layer alone. ``more_data``: the last layer for a quarter of the training, then
            also the two blocks before it, all at a tenth of the rate. Or a list of phases.
        lr_decay: Learning rate of the stem over the learning rate of the head, in (0, 1]. Between them the rate falls
            by the same factor from block to block.
        warmup_steps: Steps of all optimizers together, over which the rate of the layers that a later phase unfreezes
            rises from near 0.
        restore_best: When a phase begins, restore the weights that were best by ``monitor``. An average of weights
            (``EMAWeightAveraging``) starts from them. The file stays in ``checkpoints/`` of the log folder.
        cache_features: Compute frozen layers once for each image. True or ``memory`` stores features on the images'
            device, ``disk`` in ``default_root_dir``. Needs equal images in each epoch and a deterministic frozen part;
            refused otherwise.
        cache_limit: Most GiB of features on one rank. A larger need of any phase is an error before the first step.
        monitor: Metric that ``patience`` and ``restore_best`` follow, logged in validation, or by ``training_step``
            with ``on_epoch=True``. No check counts before an average of weights has begun on which validation runs.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is. None means ``"min"``, and is an error where
            ``monitor`` is a score by its name, such as an accuracy.
        verbose: Whether to print the schedule before training.

    Raises:
        TypeError: If an argument has the wrong type. Before training: if the strategy is not a single device or DDP, or
            an optimizer can't be used.
        ValueError: If an argument is out of range. Before training: if a selector matches no trainable parameter, a
            phase can't begin, the optimizer lacks parameters, or the checkpoint is of another schedule.
        RuntimeError: If ``monitor`` is needed and not logged: the sanity check shows this, or for some names the first
            epoch. If a loss depends on no trainable parameter. If a step switches frozen layers to training mode.

    Example:
        >>> import lightning as L
        >>> phases = [{"train": "head"}, {"train": "last 2", "start": 3}, {"train": "all", "patience": 2}]
        >>> callback = TransferLearning(phases, warmup_steps=100)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, accelerator="cpu")

    References:
        Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014, arXiv:1411.1792.
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, arXiv:1801.06146.
    """

    def __init__(
        self,
        phases: str | list[dict[str, Any]] = "more_data",
        *,
        lr_decay: float = 0.3,
        warmup_steps: int = 0,
        restore_best: bool = False,
        cache_features: bool | Literal["memory", "disk"] = False,
        cache_limit: float = 4.0,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] | None = None,
        verbose: bool = True,
    ) -> None:
        caches = (False, True, "memory", "disk")
        _check.one_of("cache_features", cache_features, caches, "True keeps the features in memory.")
        self.phases = phases
        self.lr_decay = _check.number("lr_decay", lr_decay, "1 gives all blocks the same rate.", above=0, most=1)
        self.warmup_steps = _check.integer("warmup_steps", warmup_steps, "0 means no warm-up.", least=0)
        self.restore_best = _check.flag("restore_best", restore_best)
        self.cache_features = cache_features
        self.cache_limit = _check.number("cache_limit", cache_limit, "It counts GiB.", above=0)
        self.monitor = monitor
        self.mode = take_mode("TransferLearning", monitor, mode)
        self.verbose = _check.flag("verbose", verbose)
        self._phases = read_phases(phases)
        self._forget()

    def _forget(self) -> None:
        self.phase = 0
        """Number of the phase, from 0."""
        self._began: list[list[int]] = []  # later phases that began: number, and optimizer steps before
        self._monitor = PhaseMonitor(self.monitor, self.mode)
        self._others: dict[str, Any] = {}  # settings of the schedule in which a checkpoint differs
        self._whole_epoch = False  # whether this process ran the epoch from its first batch
        self._judged = False
        self._validated = False
        self._looking: int | None = None  # a phase that is tried before it begins
        self._trainer: L.Trainer | None = None
        self._plan: TransferPlan | None = None
        self._freezer: ParameterFreezer | None = None
        self._rates: StepRates | None = None
        self._caching: FeatureCaching | None = None
        self._factors: Callable[[], dict[nn.Parameter, float | None]] | None = None

    @property
    def learning_rates(self) -> dict[str, float]:
        """Learning rate of the next step by name of the trainable parameter; empty outside of a fit."""
        if self._plan is None or self._trainer is None or self._factors is None:
            return {}
        groups = [group for optimizer in self._trainer.optimizers for group in optimizer.param_groups]
        own = {parameter: float(group["lr"]) for group in groups for parameter in group["params"]}
        factors = self._factors()
        found = {name: (parameter, factors[parameter]) for name, parameter in self._plan.names.items()}
        return {name: own[parameter] * factor for name, (parameter, factor) in found.items() if factor is not None}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state at the start of a fit, before a checkpoint's state is loaded. Refuse unsuited strategies."""
        refuse_other_package(self, trainer)
        if stage == "fit":
            refuse_sharding(trainer)
            refuse_swa(trainer, pl_module)
            self._forget()

    def first_trainable(self, pl_module: L.LightningModule) -> set[nn.Parameter]:
        """The trainable parameters of the first phase, for a callback that changes weights before the training."""
        self._plan = TransferPlan(pl_module, self._phases, self.lr_decay)
        return set(self._plan.steps[0].factors)

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule, the phase and the counters."""
        return {
            "schedule": self._schedule(),
            "phase": self.phase,
            "began": self._began,
            **self._monitor.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the phase and the counters, if the checkpoint has the same schedule."""
        ours, theirs = self._schedule(), state_dict["schedule"]
        # With `restore_best` one schedule may follow a metric, and the other none.
        self._others = {key: theirs[key] for key in ours if key in theirs and ours[key] != theirs[key]}
        if not self._others:
            self.phase, self._began = state_dict["phase"], state_dict["began"]
            if "monitor" in theirs:
                self._monitor.load(state_dict)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note that the run was resumed (a learning-rate finder also loads a checkpoint, of step 0)."""
        self._monitor.weights.resumed |= checkpoint["global_step"] > 0

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give the file of the best weights the name that a resumed run will look for."""
        self._monitor.weights.name(trainer)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Plan the phases, print them, and freeze the layers that the first one does not train."""
        for name, theirs in self._others.items():
            raise ValueError(
                f"`{name}` must be the same as in the checkpoint to resume, got {self._schedule()[name]!r}, and the "
                f"checkpoint has {theirs!r}. Give the old one, or start from its weights without `ckpt_path`."
            )
        plan = self._plan  # `first_trainable` has traced the module
        if plan is None or not plan.fits(pl_module):
            plan = TransferPlan(pl_module, self._phases, self.lr_decay)
        plan.check_optimizers(trainer.optimizers)
        self._plan, self._trainer = plan, trainer
        self._freezer = ParameterFreezer(pl_module, skip=(Metric,))
        self._rates = StepRates(trainer.optimizers)
        if self.verbose and trainer.is_global_zero:
            modules = targets(pl_module).values() if self.cache_features else ()
            cached = [any(enclosing_parts(each, step.factors) for each in modules) for step in plan.steps]
            Console().print(plan.table(self.lr_decay, self.warmup_steps, cached if self.cache_features else None))
        self._open(trainer)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise before training if the metric is missing and validation logs other metrics."""
        logged = logged_in_sanity_check(trainer)
        if self._needs_monitor and is_missing(self.monitor, logged, training=True):
            self._refuse_monitor(logged)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the starts of the phases and, after a resume, the file of the best weights; start the feature cache."""
        self._whole_epoch = False  # a learning-rate finder has trained before
        if self._plan is not None and not fast_dev_run(trainer):
            self._plan.check_starts(trainer)
        if self._keeps(trainer) and not self._monitor.weights.start(trainer):
            self._monitor.best = worst_value(self.mode)
        if self._freezer is not None:
            self._freezer.hold_eval_mode()  # not before: Lightning warns of modules in eval mode at its start
            if self.cache_features:
                limit = round(self.cache_limit * 2**30)
                folder = Path(trainer.default_root_dir) if self.cache_features == "disk" else None
                self._caching = FeatureCaching(
                    trainer, pl_module, self._freezer, limit, folder, self._current, self._in_each_phase
                )
        self._log(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin the next phase if it is due, between two optimizer steps."""
        self._whole_epoch |= batch_idx == 0
        if batch_idx % trainer.accumulate_grad_batches == 0 and (due := self._due(trainer, batch_idx)) != self.phase:
            self._begin(trainer, due)
        if self._freezer is not None:
            self._freezer.hold_eval_mode()
        if self._caching is not None and batch_idx == 0:
            self._caching.begin_epoch()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor) -> None:
        """Raise if the loss has no gradient, a frozen layer is in training mode, or no phase can be cached."""
        if not loss.requires_grad and self._plan is not None:
            raise RuntimeError(
                f"`phases[{self.phase}]['train']` must name layers that each loss depends on, got "
                f"{', '.join(self._plan.steps[self.phase].phase.train)}, and a loss that depends on none of them. "
                "Where each optimizer has its own loss, let each phase train something of each."
            )
        if self._freezer is not None and not self._freezer.holds_eval_mode:
            raise RuntimeError(
                f"`{type(pl_module).__name__}` must leave frozen layers in eval mode, got layers that its step has "
                "switched to training mode. Call `train()` in `on_train_epoch_start`, or restore the modes."
            )
        if self._caching is not None and pl_module.automatic_optimization:
            self._caching.check()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Raise if no phase can be cached, under manual optimization after all backward passes of the batch."""
        if self._caching is not None:
            self._caching.check()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare cached features: validation may run on averaged weights."""
        if self._caching is not None:
            self._caching.compare()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare a metric that validation logs with the best value."""
        in_fit = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        self._validated |= in_fit
        if in_fit and not fast_dev_run(trainer) and self._needs_monitor and self.monitor in just_logged(trainer):
            self._monitor.judge(trainer, keep=self._keeps(trainer))
            self._judged = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare a metric that training logs with the best value."""
        # Resumed at the end of a validation, Lightning ends the epoch again without a batch.
        whole, judged = self._whole_epoch, self._judged
        self._whole_epoch = self._judged = False
        if self._caching is not None:
            self._caching.end_epoch()
        if judged or not whole or not self._needs_monitor or fast_dev_run(trainer):
            return
        if self.monitor in just_logged(trainer):
            self._monitor.judge(trainer, keep=self._keeps(trainer))
            return
        if self.monitor in logged_by_step(trainer):
            raise RuntimeError(
                f"`monitor` must be logged for a whole epoch, got {self.monitor!r}, which `training_step` logs by step "
                f"alone: one batch says little. Write self.log({self.monitor!r}, ..., on_epoch=True)."
            )
        logs = trainer.callback_metrics
        if (self._validated or not trainer.enable_validation) and self.monitor not in logs:
            self._refuse_monitor(logs)

    def _refuse_monitor(self, logged: Iterable[str]) -> None:
        raise RuntimeError(
            f"`monitor` must be a logged metric, got {self.monitor!r}. Logged are: "
            f"{', '.join(sorted(logged)) or 'none'}. Name one, log it in validation, or in `training_step` under a "
            "name with 'train'. A metric that the sanity check leaves out needs Trainer(num_sanity_val_steps=0)."
        )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore flags, modes and optimizers. After an exception in validation, all modules stay in eval mode."""
        self._undo(modes=not trainer.evaluating)
        if trainer.global_step:
            mark_trained(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the module as trained, and warn of a phase that did not begin: some lengths are unknown before."""
        mark_trained(pl_module)
        late = [number for number in range(self.phase + 1, len(self._phases)) if self._phases[number].start is not None]
        if late and not trainer.should_stop and not fast_dev_run(trainer):
            rank_zero_warn(
                f"TransferLearning: `phases[{late[0]}]` should have begun at {self._phases[late[0]].when}, and the "
                f"training has ended after {trainer.current_epoch} epochs and {trainer.global_step} steps. Start it "
                "earlier, or train longer."
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the file of the best weights for a later run."""
        if self.restore_best and not fast_dev_run(trainer):
            self._monitor.weights.finish(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore flags, modes and optimizers."""
        self._undo()

    def _schedule(self) -> dict[str, Any]:
        """The settings that a checkpoint must share with the run that resumes from it."""
        plain = [phase.plain for phase in self._phases]
        followed = {"monitor": self.monitor, "mode": self.mode} if self._needs_monitor else {}
        return {"phases": plain, "lr_decay": self.lr_decay, "warmup_steps": self.warmup_steps} | followed

    @property
    def _needs_monitor(self) -> bool:
        waits = any(phase.patience is not None for phase in self._phases)
        return waits or (self.restore_best and len(self._phases) > 1)

    def _keeps(self, trainer: L.Trainer) -> bool:
        """Whether a later phase will ask for the best weights."""
        return self.restore_best and self.phase < len(self._phases) - 1 and not fast_dev_run(trainer)

    def _due(self, trainer: L.Trainer, batch_idx: int) -> int:
        """Number of the phase to which the next batch belongs."""
        if self.phase + 1 == len(self._phases):
            return self.phase
        for number in range(len(self._phases) - 1, self.phase, -1):
            start = self._phases[number].start
            now = trainer.current_epoch if isinstance(start, int) else _progress(trainer, batch_idx)
            if start is not None and now >= start:
                return number
        patience = self._phases[self.phase + 1].patience
        return self.phase + (patience is not None and self._monitor.wait >= patience)

    def _begin(self, trainer: L.Trainer, phase: int) -> None:
        if self._keeps(trainer) and self._monitor.weights.restore(trainer):
            restart_averages(trainer)
        self.phase, self._began = phase, [*self._began, [phase, trainer.global_step]]
        self._monitor.begin_phase()
        self._open(trainer)
        self._log(trainer)

    def _open(self, trainer: L.Trainer) -> None:
        """Unfreeze the layers of the phase and freeze all others, on all ranks."""
        assert self._plan is not None
        assert self._freezer is not None
        assert self._rates is not None
        step = self._plan.steps[self.phase]
        self._freezer.train_only(step.factors)
        for optimizer in trainer.optimizers:
            for parameter in self._plan.names.values():
                if parameter not in step.factors:
                    optimizer.state.pop(parameter, None)  # no old momentum, if it is unfrozen later
        torch.compiler.reset()  # code that torch 2.11 compiled computes the gradients of the first phase
        wrap_again(trainer)
        if self._caching is not None:
            self._caching.begin_phase()
        factors = self._plan.rate_factors(self._began, self.warmup_steps)
        self._factors = lambda: factors(trainer.global_step)
        self._rates.use(self._factors)

    def _log(self, trainer: L.Trainer) -> None:
        assert self._plan is not None
        step = self._plan.steps[self.phase]
        count = sum(parameter.numel() for parameter in step.factors)
        for logger in trainer.loggers:
            logger.log_metrics(
                {"transfer/phase": self.phase + 1, "transfer/parameters": count}, step=trainer.global_step
            )
        if self.phase and self.verbose:
            number = f"{self.phase + 1} of {len(self._phases)}"
            rank_zero_info(f"TransferLearning: phase {number} from epoch {trainer.current_epoch}: {step.what}")

    def _current(self) -> tuple[int, dict[nn.Parameter, float]]:
        """Number and trainable parameters of this phase, or of the phase that is tried."""
        assert self._plan is not None
        number = self.phase if self._looking is None else self._looking
        return number, self._plan.steps[number].factors

    def _in_each_phase(self, look: Callable[[], Any]) -> None:
        """Freeze as in each phase for a while, and call ``look``."""
        assert self._freezer is not None
        try:
            for number in range(len(self._phases)):
                self._looking = number
                with self._freezer.trying(self._current()[1]):
                    look()
        finally:
            self._looking = None

    def _undo(self, *, modes: bool = True) -> None:
        if self._caching is not None:
            self._caching.remove()
        if self._rates is not None:
            self._rates.detach()
        if self._freezer is not None:
            self._freezer.undo(modes=modes)
            torch.compiler.reset()
        self._plan = self._freezer = self._rates = self._caching = self._trainer = self._factors = None


def _progress(trainer: L.Trainer, batch_idx: int) -> float:
    """Share of the training that is done before this batch."""
    shares = [trainer.global_step / trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append((trainer.current_epoch + batch_idx / trainer.num_training_batches) / trainer.max_epochs)
    return max(shares, default=0.0)
