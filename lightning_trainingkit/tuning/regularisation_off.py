"""Switch off what keeps a network from learning examples by heart: dropout and weight decay."""

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from lightning_trainingkit.nn.diagnostics.untrained import listed
from lightning_trainingkit.nn.structure.randomness import rates

__all__ = ["switch_off_decay", "switch_off_dropout"]


def switch_off_dropout(module: nn.Module) -> list[str]:
    """Set the rates of dropout, stochastic depth and similar layers to 0.

    Returns:
        What was switched off, in words.

    Example:
        >>> switch_off_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
        ['Dropout (1)']
    """
    names: dict[str, list[str]] = {}
    for name, layer in module.named_modules():
        for attribute in rates(layer):
            setattr(layer, attribute, 0.0)
            names.setdefault(type(layer).__name__, []).append(name)
    return [f"{kind} ({listed(list(dict.fromkeys(layers)))})" for kind, layers in names.items()]


def switch_off_decay(optimizers: Iterable[Optimizer]) -> list[str]:
    """Set the weight decay of all parameter groups to 0, and return what was switched off, in words."""
    decays = []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if float(group.get("weight_decay") or 0.0):
                decays.append(float(group["weight_decay"]))
                group["weight_decay"] = 0.0
    return [f"weight decay ({max(decays):g})"] if decays else []
