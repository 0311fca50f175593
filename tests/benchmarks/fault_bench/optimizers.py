"""Optimizers and schedules of the rate."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler

from .settings import Settings

__all__ = ["SCHEDULES", "make_optimizer", "make_schedule"]

SCHEDULES: dict[str, Callable[[Optimizer, int, float], Any]] = {
    "warm-up": lambda optimizer, steps, lr: lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 20)),
    "cosine": lambda optimizer, steps, lr: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "one cycle": lambda optimizer, steps, lr: lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps),
    "step": lambda optimizer, steps, lr: lr_scheduler.StepLR(optimizer, steps // 3, 0.3),
    "endless warm-up": lambda optimizer, steps, lr: lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 1e5),
    "long warm-up": lambda optimizer, steps, lr: lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 4e3),
    "fast decay": lambda optimizer, steps, lr: lr_scheduler.ExponentialLR(optimizer, 0.5),
    "faster decay": lambda optimizer, steps, lr: lr_scheduler.ExponentialLR(optimizer, 0.1),
}


def make_optimizer(settings: Settings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Make the optimizer of these settings."""
    options = dict(settings.optimizer_options)
    if settings.optimizer == "adamw":
        return AdamW(parameters, settings.lr, weight_decay=settings.weight_decay, **options)
    return SGD(parameters, settings.lr, weight_decay=settings.weight_decay, **{"momentum": 0.9, **options})


def make_schedule(settings: Settings, optimizer: Optimizer) -> Any:
    """Make the schedule of these settings, to be stepped after each batch."""
    return SCHEDULES[settings.schedule](optimizer, 20 * settings.epochs, settings.lr)
