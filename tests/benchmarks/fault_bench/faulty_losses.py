"""LightningModules with a wrong loss, each the mistake of a real user."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .net import Net
from .settings import Settings


class NegatedLoss(Net):
    """The loss climbs: a minus too many."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return -F.cross_entropy(scores, y)


class LogLikelihood(Net):
    """Minimises the log-likelihood: the minus is forgotten. Validation shows the right loss."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        if not self.training:
            return F.cross_entropy(scores, y)
        return scores.log_softmax(1).gather(1, y[:, None]).mean()


class SummedLoss(Net):
    """The sum over the batch where the rate was found for the mean."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(scores, y, reduction="sum")


class SoftmaxInModel(Net):
    """The model ends with a softmax, and the loss has its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.model(x))


class SoftmaxInStep(Net):
    """The step takes probabilities, and gives them to a loss that wants scores."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.criterion = nn.CrossEntropyLoss()

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return self.criterion(torch.softmax(scores, 1), y)


class SigmoidBeforeBce(Net):
    """Probabilities for a loss that has its own sigmoid."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(torch.sigmoid(scores), F.one_hot(y, 10).float())


class MissingSoftmax(Net):
    """Scores for a loss that wants log-probabilities: it has no lower bound."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(scores, y)


class L1(Net):
    """A penalty on the weights' absolute values that outweighs the loss."""

    strength = 0.03

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss + self.strength * sum(each.abs().sum() for each in self.parameters())


class StrongL1(L1):
    """A penalty without any measure."""

    strength = 1.0


class LogOfZero(Net):
    """The logarithm of a probability that becomes zero."""

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        probabilities = (8 * scores).softmax(1)
        chosen = torch.where(probabilities > 1e-3, probabilities, 0.0).gather(1, y[:, None])
        return -(chosen.log()).mean()


class RootOfZero(Net):
    """A penalty with a root whose gradient at zero is infinite; from the third epoch on."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.current_epoch >= 2:
            loss = loss + 0.01 * (self.model.head.bias * 0).pow(2).sum().sqrt()
        return loss
