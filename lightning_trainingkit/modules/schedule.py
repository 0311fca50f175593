"""Learning-rate schedules by name. A missing length is filled in."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from lightning_trainingkit._lightning import LRSchedulerConfigType
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import resolve_mode
from lightning_trainingkit.functional.schedules import cycle_ends, cyclic_cosine
from lightning_trainingkit.modules.build import check_name, check_options

__all__ = ["Schedule", "cyclic_cosine_annealing", "warmup_cosine"]


def cyclic_cosine_annealing(optimizer: Optimizer, total_steps: int, cycles: int = 5) -> lr_scheduler.LambdaLR:
    """Lower the rate from the top to nearly 0 by cosine, ``cycles`` times in a row (``cyclic_cosine``)."""
    cycle_ends(total_steps, cycles)  # raises for bad numbers
    return lr_scheduler.LambdaLR(optimizer, lambda step: cyclic_cosine(step, total_steps, cycles))


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.0
) -> lr_scheduler.LambdaLR:
    """Raise the rate linearly over the share ``warmup`` of the steps, then lower it to its share ``final`` by cosine.

    It is one ``LambdaLR``: ``SequentialLR`` calls ``step(epoch)`` in older releases of torch, which warn of this call.
    """
    for name, share in {"warmup": warmup, "final": final}.items():
        _check.number(name, share, "Try 0.05.", least=0, below=1)
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / max(1, total_steps - rise))
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return lr_scheduler.LambdaLR(optimizer, factor)


_BY_NAME: dict[str, Callable[..., Any]] = {
    name: found
    for name, found in vars(lr_scheduler).items()
    if inspect.isclass(found)
    and issubclass(found, lr_scheduler.LRScheduler)
    and name != "LRScheduler"
    and name[0] != "_"
} | {
    "warmup_cosine": warmup_cosine,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "cyclic_cosine": cyclic_cosine_annealing,
    "exponential": lr_scheduler.ExponentialLR,
    "multistep": lr_scheduler.MultiStepLR,
    "one_cycle": lr_scheduler.OneCycleLR,
    "plateau": lr_scheduler.ReduceLROnPlateau,
    "polynomial": lr_scheduler.PolynomialLR,
    "step": lr_scheduler.StepLR,
}
# The argument that holds the length, and its default as a share of all steps.
_LENGTHS: dict[Any, tuple[str, float]] = {
    warmup_cosine: ("total_steps", 1),
    cyclic_cosine_annealing: ("total_steps", 1),
    lr_scheduler.CosineAnnealingLR: ("T_max", 1),
    lr_scheduler.OneCycleLR: ("total_steps", 1),
    lr_scheduler.PolynomialLR: ("total_iters", 1),
    lr_scheduler.StepLR: ("step_size", 1 / 3),
}
_BY_STEP = (warmup_cosine, cyclic_cosine_annealing, lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)


@dataclass(frozen=True)
class Schedule:
    """A schedule that waits for its optimizer and for the number of training steps.

    Args:
        build: Makes the scheduler from an optimizer and ``options``.
        options: Arguments of ``build``, without the length that is filled in later.
        length: Name of the argument to fill in and its share of all steps, or None.
        interval: Unit in which it advances, ``step`` or ``epoch``.
        monitor: The metric that ``ReduceLROnPlateau`` follows.
    """

    build: Callable[..., Any]
    options: dict[str, Any]
    length: tuple[str, float] | None
    interval: str
    monitor: str

    @classmethod
    def by_name(cls, name: str, options: dict[str, Any]) -> "Schedule":
        """Find a schedule by name and check its options.

        Raises:
            ValueError: If the name is unknown or an option does not fit.
        """
        check_name("schedule", name, _BY_NAME, "a short name or a class of torch.optim.lr_scheduler")
        build = _BY_NAME[name]
        options = dict(options)
        monitor = options.pop("monitor", "val/loss")
        if build is lr_scheduler.ReduceLROnPlateau:
            options["mode"] = resolve_mode(monitor, options.get("mode"))
        length = _LENGTHS.get(build)
        if length and (length[0] in options or "epochs" in options):
            length = None
        interval = options.pop("interval", "step" if length or build in _BY_STEP else "epoch")
        if interval not in ("step", "epoch"):
            raise ValueError(
                f"`schedule_options['interval']` must be 'step' or 'epoch', got {interval!r}. Leave it out."
            )
        given = ["optimizer"] + ([length[0]] if length else [])
        if build is lr_scheduler.OneCycleLR and "max_lr" not in options:
            given.append("max_lr")
        check_options("schedule_options", build, options, *given)
        return cls(build, options, length, interval, monitor)

    def config(self, optimizer: Optimizer, lr: float, steps: float) -> LRSchedulerConfigType:
        """Build the scheduler for a training of ``steps`` steps, as ``configure_optimizers`` returns it.

        Raises:
            ValueError: If the length is missing and the number of steps is not known.
        """
        options = dict(self.options)
        if self.length is not None:
            name, share = self.length
            if not 0 <= steps < math.inf:
                rule = f"`schedule_options` must give {name!r} where the number of training steps is unknown"
                raise ValueError(f"{rule}, got {sorted(options)}. Or set max_epochs or max_steps of the Trainer.")
            options[name] = max(1, round(share * steps))
        if self.build is lr_scheduler.OneCycleLR:
            options.setdefault("max_lr", lr)
        config: LRSchedulerConfigType = {
            "scheduler": self.build(optimizer, **options),
            "interval": self.interval,
            "monitor": self.monitor,
        }
        return config
