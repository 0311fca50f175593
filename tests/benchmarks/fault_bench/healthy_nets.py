"""LightningModules that do something unusual, and right."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import loaders
from .net import Net
from .optimizers import make_optimizer, make_schedule
from .settings import Settings


class LabelSmoothing(Net):
    """Soft targets."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(scores, y, label_smoothing=0.1)


class Bce(Net):
    """A sigmoid for each class."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, F.one_hot(y, 10).float())


class LogSoftmax(Net):
    """``log_softmax`` in the model, and the loss that goes with it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.model(x), 1)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(scores, y)


class Manual(Net):
    """Manual optimization."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class ManualSchedule(Manual):
    """Manual optimization with a schedule that is stepped by hand."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.lr_schedulers().step()
        return loss


class ManualAccumulation(Manual):
    """Manual optimization that steps after every second batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = Net.training_step(self, batch, batch_idx)
        self.manual_backward(loss / 2)
        if batch_idx % 2:
            self.optimizers().step()
            self.optimizers().zero_grad()
        return loss


class TwoLosses(Net):
    """Which digit, and whether it is even as a second task."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.even = nn.Linear(self.model.head.in_features, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        features = self.model.body(x)
        digit = self.loss(self.model.head(features), y)
        even = F.binary_cross_entropy_with_logits(self.even(features)[:, 0], 1.0 - y % 2)
        self.log_dict({"digit": digit, "even": even})
        return digit + 0.5 * even


class TwoHeads(Net):
    """The sum of two heads' scores."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.second = nn.Linear(self.model.head.in_features, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.body(x)
        return self.model.head(features) + self.second(features)


class Ema(Net):
    """A momentum copy of the model, which validation uses."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.average = copy.deepcopy(self.model).requires_grad_(False)

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast, 0.1)
        for slow, fast in zip(self.average.buffers(), self.model.buffers(), strict=True):
            slow.copy_(fast)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.training else self.average(x)


class SpareHead(Net):
    """A frozen part that nothing uses."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.spare = nn.Linear(7, 7).requires_grad_(False)


class FrozenFront(Net):
    """The first layers are frozen on purpose, in eval mode, and not in the optimizer."""

    frozen = 1

    def front(self) -> list[nn.Module]:
        """The frozen layers."""
        return [module for module in self.model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][: self.frozen]

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        for layer in self.front():
            layer.requires_grad_(False).eval()

    def on_train_epoch_start(self) -> None:
        for layer in self.front():
            layer.eval()

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.settings, [each for each in self.parameters() if each.requires_grad])


class NewHead(Net):
    """A trained body with a new head: the body is frozen in eval mode, or trained at a tenth of the rate."""

    freezes = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        optimizer = make_optimizer(settings, self.model.parameters())
        x, y = next(iter(loaders(settings.but(batch_size=1024))[0]))
        for _ in range(40):
            optimizer.zero_grad()
            F.cross_entropy(self.model(x), y % 5).backward()
            optimizer.step()
        optimizer.zero_grad()
        self.model.head = nn.Linear(self.model.head.in_features, 10)
        if self.freezes:
            self.model.body.requires_grad_(False).eval()

    def on_train_epoch_start(self) -> None:
        if self.freezes:
            self.model.body.eval()

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.settings, self.model.head.parameters())


class FineTuning(NewHead):
    """All of a trained body is trained on, slowly, with its new head."""

    freezes = False

    def configure_optimizers(self) -> Any:
        groups: Any = [
            {"params": self.model.body.parameters(), "lr": self.settings.lr / 10},
            {"params": self.model.head.parameters()},
        ]
        return make_optimizer(self.settings, groups)


class TwoOptimizers(Net):
    """Manual optimization with an optimizer for the body and one for the head, each with a schedule."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        for scheduler in self.lr_schedulers():
            scheduler.step()
        return loss

    def configure_optimizers(self) -> Any:
        parts = (self.model.body, self.model.head)
        optimizers = [make_optimizer(self.settings, part.parameters()) for part in parts]
        return optimizers, [make_schedule(self.settings, each) for each in optimizers]
