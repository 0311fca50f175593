"""LightningModules with a fault in their code, each the mistake of a real user."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .healthy_nets import Manual
from .net import Net
from .optimizers import make_optimizer, make_schedule
from .settings import Settings

# --- The loss


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


# --- Parameters that do not learn


class HeadNotInOptimizer(Net):
    """The optimizer has the body alone."""

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.settings, self.model.body.parameters())


class BodyNotInOptimizer(Net):
    """The optimizer has the head alone, though the body is not frozen."""

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.settings, self.model.head.parameters())


class LayerNotInOptimizer(Net):
    """One hidden layer is forgotten in the list of parameters."""

    def configure_optimizers(self) -> Any:
        layers = [module for module in self.model.body.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        forgotten = {id(each) for each in layers[1].parameters()}
        return make_optimizer(self.settings, [each for each in self.parameters() if id(each) not in forgotten])


class StaleHead(Net):
    """The head is replaced after the optimizer was made."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.optimizer = make_optimizer(settings, self.parameters())
        self.model.head = nn.Linear(self.model.head.in_features, 10)

    def configure_optimizers(self) -> Any:
        return self.optimizer


class Detached(Net):
    """The features lose their graph on the way to the head."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model.head(self.model.body(x).detach())


class BodyWithoutGrad(Net):
    """A ``no_grad`` that was meant for validation."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.model.body(x)
        return self.model.head(features)


class FirstLayerDetached(Net):
    """The features of the first layer come from a copy in NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self.model.body.children())
        features = layers[1](layers[0](x)) if isinstance(layers[0], nn.Flatten) else layers[0](x)
        features = torch.from_numpy(features.detach().numpy())
        for layer in layers[2:] if isinstance(layers[0], nn.Flatten) else layers[1:]:
            features = layer(features)
        return self.model.head(features)


class WithoutStep(Manual):
    """Manual optimization that forgets ``optimizer.step()``."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = Net.training_step(self, batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        return loss


class ClearedBeforeStep(Manual):
    """Manual optimization that clears the gradients between backward and step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = Net.training_step(self, batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().zero_grad()
        self.optimizers().step()
        return loss


# --- Modes


class EvalInInit(Net):
    """The model was put into eval mode where it was made."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.model.eval()


class EvalAfterValidation(Net):
    """Validation puts the model into eval mode by hand, and training does not put it back."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch:
            self.model.eval()


class OneLayerInEval(Net):
    """One layer that should differ between the modes is in eval mode."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        next(each for each in self.modules() if isinstance(each, nn.Dropout | nn.BatchNorm2d)).eval()


class TrainInValidation(Net):
    """Validation puts the model into training mode."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.train()
        super().validation_step(batch, batch_idx)


class DropoutInValidation(Net):
    """Dropout stays active in validation."""

    def on_validation_epoch_start(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.train()


class NoEvalHook(Net):
    """Lightning's hook that puts the model into eval mode is overridden."""

    def on_validation_model_eval(self) -> None:
        pass


class NormSkipped(Net):
    """The norm layers were made, and the forward does not use them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.forward = lambda x: x  # type: ignore[method-assign]


# --- The schedule and the gradients


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


# --- Examples that see each other


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
