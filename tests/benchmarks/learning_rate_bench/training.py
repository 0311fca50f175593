"""Train a task at one learning rate, and score it."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .data import parts
from .tasks import Net, Task

__all__ = ["Trained", "accuracy", "train"]


@dataclass(frozen=True)
class Trained:
    """The end of a training.

    Args:
        accuracy: On the test part; chance where the loss was not finite.
        loss: Of the last step.
        finite: Whether the loss was finite to the end.
        seconds: Of the training.
    """

    accuracy: float
    loss: float | None
    finite: bool
    seconds: float

    as_dict = asdict


def train(task: Task, seed: int, rate: float, *, optimizer: Callable[[Net], Any] | None = None) -> Trained:
    """Train in a plain loop, whose arithmetic is that of Lightning's Trainer. A loss that is not finite ends it.

    Args:
        task: The task.
        seed: Of the weights and of the order.
        rate: The constant learning rate.
        optimizer: Makes another optimizer, whose ``eval`` is called before the test if it has one.
    """
    module = task.module(seed, rate)
    steps = optimizer(module) if optimizer else module.configure_optimizers()
    loader = task.loader()
    start = time.process_time()
    module.train()
    loss = torch.tensor(math.nan)
    for _ in range(task.epochs):
        for number, batch in enumerate(loader):
            loss = module.training_step(batch, number)
            if not loss.isfinite():
                return Trained(task.chance, None, False, time.process_time() - start)
            steps.zero_grad()
            loss.backward()
            steps.step()
    if hasattr(steps, "eval"):
        _switch_to_average(steps, module, loader)
    return Trained(accuracy(module, task), loss.item(), True, time.process_time() - start)


@torch.no_grad()
def accuracy(module: Net, task: Task) -> float:
    """Share of the test part that is classified right."""
    module.eval()
    test = parts(task.data)[1]
    scores = torch.cat([module(x) for x in test.x.split(500)])
    return (scores.argmax(1) == test.y).double().mean().item()


@torch.no_grad()
def _switch_to_average(steps: Any, module: Net, loader: Any) -> None:
    """Test the averaged weights of a schedule-free optimizer, with BatchNorm's statistics of these weights."""
    steps.eval()
    for x, _ in loader:
        module(x)
