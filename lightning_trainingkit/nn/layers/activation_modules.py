"""Make activation modules from their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.gain import number, parse_activation, split_call
from lightning_trainingkit.nn.layers.maxout import Maxout

__all__ = ["NewActivation", "channel_dim", "read_activations"]

_CLASSES: dict[str, Any] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "hardtanh": nn.Hardtanh,
    "logsigmoid": nn.LogSigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
    "softshrink": nn.Softshrink,
    "hardshrink": nn.Hardshrink,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class NewActivation:
    """An activation that takes the place of others.

    Args:
        name: Name as in ``torch.nn.functional``, or ``maxout``.
        argument: Its parameter, or the number of Maxout's pieces. None takes torch's default.
    """

    name: str
    argument: float | None

    @property
    def pieces(self) -> int:
        """Number of pieces of Maxout, 1 for other activations."""
        return int(self.argument or 2) if self.name == "maxout" else 1

    def build(self, layer: nn.Module | None = None) -> nn.Module:
        """Make the module. For Maxout ``layer`` is the layer before it."""
        if self.name == "maxout":
            assert layer is not None
            return Maxout(self.pieces, channel_dim(layer))
        if self.name == "prelu":
            return nn.PReLU(init=0.25 if self.argument is None else self.argument)
        made: nn.Module = _CLASSES[self.name](*([] if self.argument is None else [self.argument]))
        return made


def channel_dim(layer: nn.Module) -> int:
    """The dimension of the channels in a layer's output, counted from the end."""
    return -1 - len(layer.kernel_size) if isinstance(layer, _ConvNd) else -1


def read_activations(to: Any) -> dict[str, NewActivation]:
    """Read an activation for all places, or a mapping of name patterns to activations.

    Raises:
        TypeError: If ``to`` is neither a string nor a mapping of strings to strings.
        ValueError: If an activation is unknown or has no module, or the mapping is empty.

    Example:
        >>> read_activations("leaky_relu(0.2)")
        {'*': NewActivation(name='leaky_relu', argument=0.2)}
    """
    given = {"*": to} if isinstance(to, str) else to
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise TypeError(
            f"`to` must be an activation or a dict of name patterns to activations, got {to!r}. "
            "Write 'gelu' or {'net.layer4.*': 'leaky_relu(0.2)'}, say."
        )
    if not given:
        raise ValueError("`to` must name an activation, got an empty dict. Write 'gelu', say.")
    return {pattern: _read(text) for pattern, text in given.items()}


def _read(text: str) -> NewActivation:
    name, argument = split_call(text)
    value = number(argument)
    if name == "maxout":
        if argument is not None and (value is None or value < 2 or value != int(value)):
            raise ValueError(f"`to` must have an integer of at least 2 for maxout, got {text!r}. Write 'maxout(2)'.")
        return NewActivation(name, value)
    if name not in _CLASSES:
        known = ["maxout", *_CLASSES]
        near = ", ".join(_check.nearest(name, known, 4))
        raise ValueError(f"`to` must be one of {', '.join(sorted(known))}, got {text!r}. Nearest: {near}.")
    try:
        parse_activation(text)
    except ValueError:
        raise ValueError(
            f"`to` must be an activation, with a number in parentheses where it takes one, got {text!r}. "
            "Write 'relu' or 'leaky_relu(0.2)', say."
        ) from None
    return NewActivation(name, value)
