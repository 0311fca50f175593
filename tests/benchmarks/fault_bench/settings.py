"""The settings of one small training. A fault, a cure and a healthy variant are changes of them."""

from dataclasses import dataclass, replace
from typing import Any

from .rates import RATES

__all__ = ["MODELS", "OPTIMIZERS", "Settings"]

MODELS = ("mlp", "cnn", "cnn_bn", "resnet", "transformer")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Settings:
    """A training on scikit-learn's digits, in numbers and names, so that it can be sent to another process.

    Args:
        model: One of ``MODELS``.
        optimizer: ``"sgd"`` (momentum 0.9) or ``"adamw"``.
        seed: Of the weights and the order of the images.
        module: Name of the LightningModule's class, in ``net`` or ``healthy_nets`` or a file of faulty ones.
        rate: Learning rate; 0 takes the best rate of the grid.
        epochs: Epochs of 20 steps.
        activation: Name in ``models.ACTIVATIONS``; empty takes the model's own.
        depth: Hidden layers of the MLP.
        width: Units of a hidden layer of the MLP.
        init: Changes of the weights, in this order, as (name in ``weights``, number).
        inputs: Name in ``data.INPUTS``.
        labels: Name in ``data.LABELS``.
        schedule: Name in ``optimizers.SCHEDULES``; empty for a fixed rate.
        loss_factor: Number that the loss is multiplied by.
        override_init: Whether the kit's InitOverride draws the weights again.
        optimizer_options: Further arguments of the optimizer.
        trainer_options: Further arguments of the Trainer.
    """

    model: str = "mlp"
    optimizer: str = "sgd"
    seed: int = 0
    module: str = "Net"
    rate: float = 0.0
    epochs: int = 6
    batch_size: int = 64
    activation: str = ""
    depth: int = 3
    width: int = 64
    dropout: float = 0.0
    batch_norm_options: tuple[tuple[str, float], ...] = ()
    init: tuple[tuple[str, float], ...] = ()
    inputs: str = "standardised"
    labels: str = "true"
    schedule: str = ""
    loss_factor: float = 1.0
    weight_decay: float = 1e-4
    override_init: bool = False
    optimizer_options: tuple[tuple[str, Any], ...] = ()
    trainer_options: tuple[tuple[str, Any], ...] = ()

    @property
    def lr(self) -> float:
        """The learning rate of this training."""
        return self.rate or RATES[self.model, self.optimizer][0]

    def but(self, **changes: Any) -> "Settings":
        """Copy these settings with changes."""
        return replace(self, **changes)

    def times_rate(self, factor: float) -> "Settings":
        """Copy these settings with the learning rate times a factor."""
        return self.but(rate=self.lr * factor)
