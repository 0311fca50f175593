"""The gain of an activation: the factor on the weights before it that keeps the size of the signal."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ACTIVATIONS", "LINEAR", "Activation", "number", "parse_activation", "split_call"]

_TORCH_GAINS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": lambda z: z,
    "prelu": lambda z, slope=0.25: functional.leaky_relu(z, slope),
    # z1 * sigmoid(z2) with independent halves has the second moment of the gate alone.
    "glu": torch.sigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
}
ACTIVATIONS |= {
    name: getattr(functional, name)
    for name in (
        *("relu", "relu6", "leaky_relu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"),
        *("hardsigmoid", "hardtanh", "logsigmoid", "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink"),
    )
}
_WITH_PARAMETER = ("leaky_relu", "prelu", "elu", "celu", "softplus", "softshrink", "hardshrink")


@dataclass(frozen=True)
class Activation:
    """An elementwise function that follows a layer.

    Args:
        name: Name as in ``torch.nn.functional``; ``"linear"`` if no activation follows.
        fn: The function, from a tensor to a tensor of the same shape.
    """

    name: str
    fn: Callable[[Tensor], Tensor] = field(compare=False, repr=False)

    @property
    def gain(self) -> float:
        """Factor on the weights that keeps the second moment of the signal.

        ``torch.nn.init.calculate_gain`` where torch knows the name; otherwise ``1 / sqrt(E[f(z)^2])`` with
        ``z ~ N(0, 1)``, by the trapezoidal rule in float64 (error below 1e-6 for continuous functions).

        Raises:
            ValueError: If the second moment is not a positive number.

        Example:
            >>> parse_activation("relu").gain == 2**0.5
            True
            >>> round(parse_activation("gelu").gain, 3)
            1.534
        """
        if self.name in _TORCH_GAINS:
            slope = -float(self.fn(torch.tensor(-1.0, dtype=torch.float64))) if self.name == "leaky_relu" else None
            return float(nn.init.calculate_gain(self.name, slope))  # type: ignore[arg-type]
        step = 2.0**-10  # dyadic, so that kinks at integers and halves fall on the grid
        z = torch.arange(-12 * 1024, 12 * 1024 + 1, dtype=torch.float64) * step
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        with torch.no_grad():
            moment = float((self.fn(z.clone()).square() * density).sum() * step)
        if not 0 < moment < math.inf:
            raise ValueError(
                f"`{self.name}` must have a positive finite second moment, got {moment}. Give another activation."
            )
        return 1 / math.sqrt(moment)


LINEAR = Activation("linear", ACTIVATIONS["linear"])


def parse_activation(text: str) -> Activation:
    """Read the name of an activation, with its parameter if it has one: ``"gelu"``, ``"leaky_relu(0.2)"``.

    Args:
        text: Name of a function of ``torch.nn.functional``, its parameter in parentheses.

    Raises:
        ValueError: If the name is unknown or its parameter is not a number.

    Example:
        >>> parse_activation("leaky_relu(0.2)").fn(torch.tensor(-1.0))
        tensor(-0.2000)
    """
    name, argument = split_call(text)
    value = number(argument)
    if name in ACTIVATIONS and argument is None:
        return Activation(name, ACTIVATIONS[name])
    if name in _WITH_PARAMETER and value is not None:
        return Activation(name, lambda z: ACTIVATIONS[name](z, value))
    names = ", ".join(sorted(ACTIVATIONS))
    raise ValueError(f"`nonlinearity` must be the name of an activation, got {text!r}. Choose from {names}.")


def split_call(text: str) -> tuple[str, str | None]:
    """Split ``"name(argument)"``. Without both parentheses the name is the whole text and the argument None.

    Example:
        >>> split_call("normal(0.01)"), split_call("zeros"), split_call("normal(0.01")
        (('normal', '0.01'), ('zeros', None), ('normal(0.01', None))
    """
    name, opened, argument = text.replace(" ", "").partition("(")
    if not opened:
        return name, None
    return (name, argument[:-1]) if argument.endswith(")") else (text, None)


def number(text: str | None) -> float | None:
    """Read a finite number. Return None if the text is none."""
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
