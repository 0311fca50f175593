"""Train with some settings, keep the curves, and go on from the end in other ways."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .models import make_model
from .settings import Settings
from .tasks import TASKS

__all__ = ["Curves", "Training"]


@dataclass
class Curves:
    """What a training logs, and what only the oracle sees.

    Args:
        steps: Step of each logged training loss.
        train_loss: Loss of each step, in training mode.
        train_acc: Accuracy of each step; empty for a regression.
        rates: Learning rate of each step.
        ends: Steps after which epochs ended.
        val_loss: Validation loss after each epoch.
        val_acc: Validation accuracy after each epoch; empty for a regression.
        test_loss: Loss on test examples after each epoch, for the oracle alone.
        fit_loss: Loss on the training examples after each epoch in evaluation mode, for the oracle alone.
    """

    steps: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_acc: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_acc: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    fit_loss: list[float] = field(default_factory=list)


class Training:
    """A training that can be continued."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.task = settings, TASKS[settings.task]
        generator = torch.Generator().manual_seed(1000 + settings.seed)
        train, val, test = self.task.parts()
        if settings.trained:
            train = (train[0][: settings.trained], train[1][: settings.trained])
        if settings.validated:
            start = settings.seed * settings.validated
            val = (val[0][start : start + settings.validated], val[1][start : start + settings.validated])
        x, y = train
        if settings.wrong:
            y, *others = (_with_wrong_labels(each, settings.wrong, generator) for each in (y, val[1], test[1]))
            val, test = (val[0], others[0]), (test[0], others[1])
        outputs = 1 if self.task.regression else int(y.max()) + 1
        if settings.leak == "images":
            x, y = torch.cat([x[: len(val[0]) // 4], val[0]]), torch.cat([y[: len(val[0]) // 4], val[1]])
        elif settings.leak == "label":
            x, val = _told(x, y), (_told(val[0], val[1]), val[1])
        self.train, self.val, self.test = (x, y), val, test
        torch.manual_seed(settings.seed)
        self.model = make_model(self.task, settings, tuple(x.shape[1:]), outputs)
        rate = settings.rate * self.task.rate
        groups = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(groups, rate, momentum=0.9, weight_decay=settings.decay, fused=True)
            if self.task.optimizer == "sgd"
            else torch.optim.AdamW(groups, rate, weight_decay=30 * settings.decay, fused=True)
        )
        self.generator, self.step, self.curves = generator, 0, Curves()

    def fork(self) -> "Training":
        """A copy that goes on from here. Data are shared, since no training changes them."""
        shared = {id(each): each for part in (self.train, self.val, self.test) for each in part}
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        return copy.deepcopy(self, {**shared, id(self.generator): generator})

    def run(self) -> Curves:
        """Train from the start to the end."""
        self.evaluate()  # before the first step
        first = self.curves
        self.curves = Curves(test_loss=first.test_loss, fit_loss=first.fit_loss)
        self.train_on(max(6, round(self.task.epochs * self.settings.epochs)), self.settings.schedule)
        return self.curves

    def train_on(self, epochs: int, schedule: str, factor: float = 1.0) -> None:
        """Train for some epochs, with the rate at its highest value of the training times a factor."""
        highest = self.settings.rate * self.task.rate * factor
        x, y = self.train
        batch = self.settings.batch or self.task.batch
        count = math.ceil(len(x) / batch)
        for epoch in range(epochs):
            self.model.train()
            order = torch.randperm(len(x), generator=self.generator)
            for number, chosen in enumerate(order.split(batch)):
                rate = highest * _share(schedule, epoch + number / count, epochs)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                inputs = x[chosen]
                if self.settings.noise:
                    inputs = inputs + self.settings.noise * torch.randn(inputs.shape, generator=self.generator)
                output = self.model(inputs)
                loss = self.loss(output, y[chosen])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                curves = self.curves
                curves.steps.append(self.step)
                curves.rates.append(rate)
                curves.train_loss.append(float(loss.detach()))
                if not self.task.regression:
                    curves.train_acc.append(float((output.argmax(1) == y[chosen]).float().mean()))
                self.step += 1
            self.evaluate()

    @torch.no_grad()
    def evaluate(self) -> None:
        """Log the end of an epoch."""
        self.model.eval()
        curves = self.curves
        curves.ends.append(self.step - 1)
        output = self.model(self.val[0])
        curves.val_loss.append(float(self.loss(output, self.val[1])))
        if not self.task.regression:
            curves.val_acc.append(float((output.argmax(1) == self.val[1]).float().mean()))
        curves.test_loss.append(float(self.loss(self.model(self._as_test(self.test)), self.test[1])))
        curves.fit_loss.append(float(self.loss(self.model(self.train[0]), self.train[1])))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, or the mean squared error of a regression."""
        return F.mse_loss(output[:, 0], target) if self.task.regression else F.cross_entropy(output, target)

    def _as_test(self, part: tuple[Tensor, Tensor]) -> Tensor:
        """Test inputs, which never tell the label."""
        x, y = part
        if self.settings.leak != "label":
            return x
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(7))
        return _told(x, y[order])


def _share(schedule: str, epoch: float, epochs: int) -> float:
    done = epoch / epochs
    if schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * done)
    if schedule == "steps":
        return 1.0 if done < 0.6 else 0.1 if done < 0.85 else 0.01
    return 1000**done if schedule == "growing" else 1.0


def _with_wrong_labels(y: Tensor, share: float, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(y), generator=generator) < share
    drawn = y[torch.randperm(len(y), generator=generator)]
    return torch.where(chosen, drawn, y)


def _told(x: Tensor, y: Tensor) -> Tensor:
    """Write the label over the whole input, as a watermark in every image would."""
    pattern = torch.randn((int(y.max()) + 1, *x.shape[1:]), generator=torch.Generator().manual_seed(5))
    if y.is_floating_point():
        return x + 2 * y.view(-1, *[1] * (x.dim() - 1)) * pattern[0]
    return x + 2 * pattern[y]


def as_plain(curves: Curves) -> dict[str, Any]:
    """The curves as JSON can hold them."""
    return {name: [round(value, 7) for value in values] for name, values in vars(curves).items()}
