"""LightningModules with parts that do not train, or are in the wrong mode."""

from typing import Any

import torch
from torch import Tensor, nn

from .healthy_nets import Manual
from .net import Net
from .optimizers import make_optimizer
from .settings import Settings


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
