"""Changes of a new model's weights: wrong initialisations, and two healthy ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .models import Model

__all__ = ["WEIGHTS", "change_weights"]


@torch.no_grad()
def change_weights(model: Model, changes: tuple[tuple[str, float], ...]) -> None:
    """Apply changes by name, each with its number."""
    for name, number in changes:
        WEIGHTS[name](model, number)


def _layers(model: Model) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def _norms(model: Model) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)]


def _each(change: Callable[[Tensor, float], object]) -> Callable[[Model, float], None]:
    """A change of every linear and convolutional weight."""

    def all_layers(model: Model, number: float) -> None:
        for layer in _layers(model):
            change(layer.weight, number)  # type: ignore[arg-type]

    return all_layers


def _head(model: Model, factor: float) -> None:
    model.head.weight *= factor
    model.head.bias *= factor


def _constant(model: Model, value: float) -> None:
    for layer in _layers(model):
        layer.weight.fill_(value)  # type: ignore[operator]
        if layer.bias is not None:
            layer.bias.fill_(0.0)  # type: ignore[operator]


def _bias(model: Model, value: float) -> None:
    """Fill the biases of the hidden layers."""
    for layer in _layers(model):
        if layer is not model.head and layer.bias is not None:
            layer.bias.fill_(value)  # type: ignore[operator]


def _dead(model: Model, share: float) -> None:
    """Push a share of the units of each hidden layer so far down that a ReLU never opens."""
    norms = [norm for norm in _norms(model) if isinstance(norm, nn.BatchNorm2d)]
    for layer in norms or [layer for layer in _layers(model) if layer is not model.head]:
        layer.bias[: round(share * len(layer.bias))] = -30.0  # type: ignore[index, arg-type]


def _zero_gains(model: Model, _: float) -> None:
    """Start the last gain of each residual branch at zero."""
    for name, module in model.named_modules():
        if name.endswith("norm2") and isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)


def _xavier(model: Model, _: float) -> None:
    _each(lambda weight, _: nn.init.xavier_normal_(weight))(model, 0)


def _kaiming(model: Model, _: float) -> None:
    _each(lambda weight, _: nn.init.kaiming_normal_(weight))(model, 0)
    _bias(model, 0.0)


WEIGHTS: dict[str, Callable[[Model, float], None]] = {
    "scale": _each(lambda weight, factor: weight.mul_(factor)),
    "normal": _each(lambda weight, std: weight.normal_(0, std)),
    "constant": _constant,
    "noise": _each(lambda weight, std: weight.add_(torch.randn_like(weight) * std)),
    "head": _head,
    "bias": _bias,
    "dead": _dead,
    "zero gains": _zero_gains,
    "xavier": _xavier,
    "kaiming": _kaiming,
}
