"""Switch off what keeps a network from learning examples by heart: dropout and weight decay."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from lightning_trainingkit.nn.diagnostics.dropout_calls import DROPOUTS
from lightning_trainingkit.nn.diagnostics.untrained import listed
from lightning_trainingkit.nn.structure.randomness import rates

__all__ = ["NoDropout", "switch_off_decay", "switch_off_dropout"]


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


class NoDropout(TorchFunctionMode):
    """Let torch's dropout functions drop nothing inside the block.

    Attributes:
        names: The functions that would have dropped something.

    Example:
        >>> import torch
    >>> from torch.nn.functional import dropout
        >>> with NoDropout() as mode:
        ...     dropout(torch.ones(3), 0.5)
        tensor([1., 1., 1.])
        >>> mode.names
        ['F.dropout']
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            call = inspect.signature(func).bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"] and call.arguments["p"] > 0:
                self.names.append(DROPOUTS[func])
                call.arguments["p"] = 0.0
            return func(*call.args, **call.kwargs)
        return func(*args, **kwargs)
