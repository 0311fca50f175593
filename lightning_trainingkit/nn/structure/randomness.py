"""The one list of layers that draw random numbers, and of their rates."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

__all__ = [
    "NOISE",
    "dropout_rates",
    "is_stochastic_depth",
    "layers_that_draw",
    "noise_on",
    "rate_attribute",
    "rates",
]

NOISE = "_trainingkit_noise"
"""Entry in a module's ``__dict__`` for the noise that stands in front of its forward."""

_FRACTIONAL = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
# Children whose rate their parent may read and apply in its own training mode, as fused attention does
_READ_BY_PARENT = {"attn_drop", "attn_dropout", "attention_dropout", "patch_drop"}


def layers_that_draw(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Find the modules that draw random numbers in training mode. Layers with a rate of 0 do not.

    Args:
        modules: The modules to check. Their submodules are not.

    Example:
        >>> {type(layer).__name__ for layer in layers_that_draw([nn.Linear(2, 2), nn.Dropout(0.1), nn.Dropout(0.0)])}
        {'Dropout'}
    """
    candidates = list(modules)
    drawing = {module for module in candidates if _draws(module)}
    return drawing | {module for module in candidates if _reads_rates(module, drawing)}


def noise_on(module: nn.Module) -> Any:
    """Return the noise that a surgery of the kit has put in front of a module's forward, or None."""
    return vars(module).get(NOISE)


def rates(module: nn.Module) -> list[str]:
    """Name the attributes of a module that hold a positive rate, at which it drops something in training mode.

    Example:
        >>> rates(nn.Dropout(0.1)), rates(nn.Dropout(0.0)), rates(nn.MultiheadAttention(4, 1, dropout=0.1))
        (['p'], [], ['dropout'])
    """
    return [name for name, value in _rate_attributes(module).items() if value > 0]


def dropout_rates(module: nn.Module) -> list[str]:
    """Name the attributes of a module that hold a rate of dropout, 0 included. Stochastic depth and DropBlock are none.

    Attributes that a module only keeps, and that no method but ``__init__`` reads, do not count. Dropout in
    TorchScript, whose rate is fixed, counts.

    Example:
        >>> dropout_rates(nn.Dropout(0.0)), dropout_rates(nn.Linear(2, 2))
        (['p'], [])
    """
    if isinstance(module, torch.jit.ScriptModule):
        return ["p"] if module.original_name in {each.__name__ for each in _DropoutNd.__subclasses__()} else []
    kind = type(module).__name__.lower()
    if any(word in kind for word in ("path", "depth", "block2d", "block3d")):
        return []
    names = [name for name in _rate_attributes(module) if "path" not in name and "depth" not in name]
    read = _names_in_methods(type(module))
    return [name for name in names if isinstance(module, _DropoutNd) or name in read]


def _rate_attributes(module: nn.Module) -> dict[str, float]:
    if isinstance(module, _DropoutNd):
        return {"p": module.p}
    if isinstance(module, nn.MultiheadAttention):
        return {"dropout": module.dropout}
    if isinstance(module, nn.RNNBase):  # dropout stands between layers
        return {"dropout": module.dropout} if module.num_layers > 1 else {}
    if isinstance(module, (nn.RReLU, *_FRACTIONAL)):
        return {}
    kind = type(module).__name__.lower()
    drops = "drop" in kind or "stochasticdepth" in kind
    known = str(type(module).forward.__module__).partition(".")[0] in ("torchvision", "timm")
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int | float) and value >= 0 and not isinstance(value, bool)
        if ((drops or known) and "drop" in name) or (drops and name in ("p", "prob", "probability", "rate"))
    }


def _names_in_methods(kind: type) -> set[str]:
    """Names of the attributes that the methods of a class read, other than ``__init__`` and the like."""
    methods = [
        method
        for each in kind.__mro__
        if each is not nn.Module
        for name, method in vars(each).items()
        if name not in ("__init__", "__setstate__", "extra_repr", "reset_classifier")
    ]
    return {name for each in methods for name in getattr(getattr(each, "__code__", None), "co_names", ())}


def is_stochastic_depth(module: nn.Module) -> bool:
    """Whether a module is a layer for stochastic depth, by the name of its class: torchvision's, timm's and others.

    Example:
        >>> from torchvision.ops import StochasticDepth
        >>> is_stochastic_depth(StochasticDepth(0.1, "row")), is_stochastic_depth(nn.Dropout(0.1))
        (True, False)
    """
    kind = type(module).__name__.lower().replace("_", "")
    return "droppath" in kind or "stochasticdepth" in kind


def rate_attribute(module: nn.Module) -> str:
    """Name the attribute with the rate of a layer for stochastic depth. Empty if it has none of the usual names.

    Example:
        >>> from torchvision.ops import StochasticDepth
        >>> rate_attribute(StochasticDepth(0.0, "row"))
        'p'
    """
    return next((name for name in ("p", "drop_prob", "drop_rate", "prob", "rate") if name in vars(module)), "")


def _draws(module: nn.Module) -> bool:
    """Whether a module draws random numbers in training mode."""
    noise = noise_on(module)
    if noise is not None and noise.draws and noise.rate > 0:
        return True
    if getattr(type(module), "draws", False):  # a layer of the kit
        return bool(getattr(module, "rate", 1) > 0)
    if isinstance(module, nn.RReLU):
        return bool(module.lower < module.upper)
    if isinstance(module, _FRACTIONAL):
        return module._random_samples is None
    return bool(rates(module))


def _reads_rates(module: nn.Module, on: set[nn.Module]) -> bool:
    if isinstance(module, nn.TransformerEncoderLayer):
        return not on.isdisjoint(module.modules())
    return any(name in _READ_BY_PARENT and child in on for name, child in module.named_children())
