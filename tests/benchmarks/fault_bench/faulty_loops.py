"""LightningModules with a wrong step, or whose examples see each other."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .healthy_nets import Manual
from .net import Net
from .optimizers import make_optimizer, make_schedule
from .settings import Settings


class ScheduleNotReturned(Net):
    """The schedule is made, and Lightning never hears of it."""

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.settings, self.parameters())
        self.scheduler = make_schedule(self.settings, optimizer)
        return optimizer


class ScheduleByEpochs(Net):
    """A schedule counted in steps is stepped once in a thousand epochs."""

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.settings, self.parameters())
        scheduler = make_schedule(self.settings, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "frequency": 1000}}


class ManualWithoutSchedule(Manual):
    """Manual optimization that never steps its schedule."""


class ManualWithoutZeroGrad(Manual):
    """Manual optimization without ``zero_grad``."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = Net.training_step(self, batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().step()
        return loss


class ZeroGradOverridden(Net):
    """Lightning's hook that clears the gradients does nothing."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        pass


class ZeroGradOnceAnEpoch(Net):
    """The gradients are cleared at the start of an epoch."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        if batch_idx == 0:
            optimizer.zero_grad()


class CentredByBatch(Net):
    """The features are centred by the batch's mean, in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.body(x)
        return self.model.head(features - features.mean(0))


class SoftmaxOverBatch(Net):
    """The softmax runs over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).log_softmax(0)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(scores, y)


class ReshapedWrongly(Net):
    """A ``reshape`` where a transpose was meant mixes the images."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.body(x)
        return self.model.head(features.T.reshape(features.shape))


class AttentionOverBatch(Net):
    """``nn.MultiheadAttention`` without ``batch_first``: images attend to images."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.attention = nn.MultiheadAttention(self.model.head.in_features, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.body(x)[:, None]
        return self.model.head((features + self.attention(features, features, features)[0])[:, 0])
