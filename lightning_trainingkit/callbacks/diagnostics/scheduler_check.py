"""Find learning-rate schedules that the training does not step, or steps far too seldom."""

import gc
import math
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_trainingkit._lightning import L, is_overridden
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.schedule_progress import (
    inner_schedules,
    schedule_length,
    schedule_position,
)

__all__ = ["SchedulerCheck"]

_BATCHES = 10  # without which nothing is said
_SHARE = 0.1  # of a schedule
_EPOCHS = 2  # by the end of which a module has stepped a schedule by hand


@dataclass
class _Schedule:
    """A schedule and its state at the start. ``interval`` is empty where the Trainer does not know it."""

    schedule: Any
    optimizer: Optimizer
    interval: str
    frequency: int
    start: int = 0
    rates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start, self.rates = schedule_position(self.schedule), _rates(self.optimizer)

    @property
    def stands_still(self) -> bool:
        return schedule_position(self.schedule) == self.start and _rates(self.optimizer) == self.rates


class SchedulerCheck:
    """Remembers the schedules of a fit at its start, and compares later.

    - **Schedules that the Trainer knows**, in automatic and manual optimization.
    - **Schedules that it does not know**: the module built one in ``configure_optimizers``, and did not return it.
    - **No finding**: ``ReduceLROnPlateau``, which may stand still. Schedules of other packages. A schedule whose
      ``frequency`` is not over.

    Args:
        trainer: The Trainer, in ``on_train_start``.
        pl_module: The trained module.
    """

    def __init__(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._schedules = [
            _Schedule(config.scheduler, config.scheduler.optimizer, config.interval, config.frequency)
            for config in trainer.lr_scheduler_configs
            if isinstance(config.scheduler, LRScheduler) and not isinstance(config.scheduler, ReduceLROnPlateau)
        ]
        known = {getattr(config.scheduler, "optimizer", None) for config in trainer.lr_scheduler_configs}
        left = [each for each in trainer.optimizers if each not in known and _had_schedule(each)]
        self._lost = {each: _rates(each) for each in left}
        for optimizer in left:
            for schedule in _kept_schedules(optimizer):
                self._lost.pop(optimizer, None)
                if not isinstance(schedule, ReduceLROnPlateau):
                    self._schedules.append(_Schedule(schedule, optimizer, "", 1))
        self._batches, self._epochs = _expected(trainer)

    def findings(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *, batches: int, epochs: int, final: bool
    ) -> list[Finding]:
        """Return one finding for each schedule that stands still, or is stepped far too seldom.

        Args:
            trainer: The Trainer.
            pl_module: The trained module.
            batches: Number of finished batches of this fit.
            epochs: Number of finished epochs of this fit.
            final: Whether the fit is over.
        """
        if batches < _BATCHES:
            return []
        found = [_lost(optimizer) for optimizer, rates in self._lost.items() if _rates(optimizer) == rates]
        for each in self._schedules:
            if each.stands_still and self._is_late(each, trainer, pl_module, batches, epochs, final):
                found.append(_standing(each, batches, epochs, manual=not pl_module.automatic_optimization))
            elif each.interval == "epoch" and pl_module.automatic_optimization and self._is_too_long(each):
                found.append(_too_long(each, self._batches, self._epochs))
        return found

    def _is_late(
        self,
        each: _Schedule,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batches: int,
        epochs: int,
        final: bool,
    ) -> bool:
        if not each.interval or not pl_module.automatic_optimization:
            # The module steps it by hand, perhaps at the end of an epoch, after this call.
            return epochs >= _EPOCHS + (not final) or (final and each.interval == "step")
        steps = batches // trainer.accumulate_grad_batches if each.interval == "step" else epochs - (not final)
        overridden = is_overridden("lr_scheduler_step", pl_module)
        return steps >= 2 * each.frequency and (final or not overridden)

    def _is_too_long(self, each: _Schedule) -> bool:
        """Whether a schedule with a length in steps is stepped once an epoch."""
        length = schedule_length(each.schedule)
        if not length or not math.isfinite(self._batches):
            return False
        one_cycle = type(each.schedule).__name__ == "OneCycleLR"
        meant_as_steps = one_cycle or 0.5 <= length / self._batches <= 2
        return meant_as_steps and self._epochs / each.frequency < _SHARE * length


def _expected(trainer: L.Trainer) -> tuple[float, float]:
    """Number of optimizer steps and epochs of the whole fit, infinite where it has no end."""
    batches = trainer.num_training_batches
    if not batches or math.isinf(batches):
        return math.inf, math.inf
    in_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
    epochs = math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)
    steps = epochs * in_epoch if trainer.max_steps == -1 else min(epochs * in_epoch, trainer.max_steps)
    return steps, steps / in_epoch


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]


def _had_schedule(optimizer: Optimizer) -> bool:
    """Whether a schedule of torch was built on an optimizer. A resumed optimizer has the key without a schedule."""
    wrapped = hasattr(optimizer.step, "_wrapped_by_lr_sched")
    return wrapped and any("initial_lr" in group for group in optimizer.param_groups)


def _kept_schedules(optimizer: Optimizer) -> list[LRScheduler]:
    """The schedules of an optimizer that some object still holds. No other can ever be stepped."""
    gc.collect()
    schedules = [each for each in gc.get_objects() if issubclass(type(each), LRScheduler)]
    mine = [each for each in schedules if getattr(each, "optimizer", None) is optimizer]
    inside = [inner for each in mine for inner in inner_schedules(each)]
    return [each for each in mine if not any(each is inner for inner in inside)]


def _line(schedule: Any, interval: str) -> str:
    name = type(schedule).__name__
    return f'`{{"scheduler": schedule, "interval": "{interval}"}}` with your {name} as `schedule`'


def _lost(optimizer: Optimizer) -> Finding:
    name = type(optimizer).__name__
    return Finding.of(
        "scheduler_not_stepping",
        name,
        0.0,
        f"A learning-rate schedule was built for {name}, and nothing holds it any more: its rate stays at "
        f"{_rates(optimizer)[0]:g}.",
        'Return it from `configure_optimizers`: `return {"optimizer": optimizer, "lr_scheduler": schedule}`.',
    )


def _standing(each: _Schedule, batches: int, epochs: int, *, manual: bool) -> Finding:
    name = type(each.schedule).__name__
    if not each.interval:
        advice = 'Return it from `configure_optimizers`: `{"optimizer": optimizer, "lr_scheduler": schedule}`.'
    elif manual:
        advice = "Step it yourself in manual optimization: `self.lr_schedulers().step()`, after `optimizer.step()`."
    else:
        advice = "Step it: an overridden `lr_scheduler_step(self, scheduler, metric)` must call `scheduler.step()`."
    return Finding.of(
        "scheduler_not_stepping",
        name,
        0.0,
        f"{name} was not stepped in {batches} batches and {epochs} epochs: the learning rate stays at "
        f"{each.rates[0]:g}.",
        advice,
    )


def _too_long(each: _Schedule, steps: float, epochs: float) -> Finding:
    name, length = type(each.schedule).__name__, schedule_length(each.schedule)
    assert length is not None
    share = epochs / each.frequency / length
    return Finding.of(
        "scheduler_not_stepping",
        name,
        share,
        f"{name} is {length} steps long and is stepped once an epoch. This fit has {epochs:.0f} epochs and {steps:.0f} "
        f"steps, so it goes through {share:.1%} of the schedule.",
        f"Step it after each batch: return {_line(each.schedule, 'step')} under `lr_scheduler`.",
    )
