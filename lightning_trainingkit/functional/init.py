"""Weight initialisation: schemes and fans."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional.gain import number, split_call

__all__ = ["InitScheme", "fans", "init_", "parse_scheme"]

_MODES = {"xavier": ("fan_in", "fan_out", "fan_avg"), "kaiming": ("fan_in", "fan_out")}
_SCHEMES = (
    "constant(value), normal(std), xavier_normal, xavier_uniform, kaiming_normal, kaiming_uniform, orthogonal, zeros; "
    "xavier and kaiming take (fan_in) or (fan_out), xavier also (fan_avg)"
)


@dataclass(frozen=True)
class InitScheme:
    """The scheme that fills a weight. `parse_scheme` reads it from a string such as ``"kaiming_normal(fan_out)"``.

    Args:
        name: Scheme without its argument.
        mode: Fan that xavier and kaiming divide by. None for other schemes.
        value: Standard deviation of ``normal``, value of ``constant``. None for other schemes.
    """

    name: str
    mode: str | None = None
    value: float | None = None

    @property
    def needs_gain(self) -> bool:
        """Whether the scheme uses the gain of the next activation (kaiming and orthogonal)."""
        return self.name.startswith("kaiming") or self.name == "orthogonal"

    def __str__(self) -> str:
        argument = self.value if self.mode in (None, "fan_in") else self.mode
        return self.name if argument is None else f"{self.name}({argument})"


def parse_scheme(text: str) -> InitScheme:
    """Read a scheme such as ``"kaiming_normal"``, ``"xavier_uniform(fan_avg)"`` or ``"normal(0.01)"``.

    By default xavier and kaiming divide by ``fan_in``, the lecture's rule. ``xavier_normal(fan_avg)`` is Glorot's rule
    and torch's ``xavier_normal_``.

    Args:
        text: Name of the scheme, its argument in parentheses.

    Raises:
        ValueError: If the scheme is unknown, or its argument is missing or out of range.

    Example:
        >>> parse_scheme("normal(0.01)")
        InitScheme(name='normal', mode=None, value=0.01)
        >>> str(parse_scheme("kaiming_normal(fan_in)"))
        'kaiming_normal'
    """
    name, argument = split_call(text)
    family = name.split("_")[0]
    if name in ("zeros", "orthogonal") and argument is None:
        return InitScheme(name)
    if name in ("normal", "constant"):
        value = number(argument)
        if value is None or not math.isfinite(value) or (name == "normal" and value <= 0):
            rule = "`normal(std)` with a positive std" if name == "normal" else "`constant(value)` with a finite value"
            raise ValueError(f"`scheme` must be {rule}, got {text!r}. Write it like {name}(0.01).")
        return InitScheme(name, value=value)
    mode = "fan_in" if argument is None else argument
    if name in (f"{family}_normal", f"{family}_uniform") and mode in _MODES.get(family, ()):
        return InitScheme(name, mode=mode)
    raise ValueError(f"`scheme` must be a known scheme, got {text!r}. Choose from {_SCHEMES}.")


def fans(shape: Sequence[int], *, groups: int = 1, transposed: bool = False) -> tuple[int, int]:
    """Count the inputs of one output, and the outputs of one input, of a linear or convolutional layer.

    ``fan_in = k * k * C_in / groups``, the lecture's Din. ``torch.nn.init`` agrees in most cases. It swaps the fans of
    transposed convolutions, and differs in ``fan_out`` of grouped convolutions. Neither counts strides.

    Args:
        shape: ``(out, in / groups, *kernel)``, or ``(in, out / groups, *kernel)`` if transposed.
        groups: Groups of the convolution.
        transposed: Whether the weight is laid out as in ``nn.ConvTranspose2d``.

    Returns:
        ``(fan_in, fan_out)``.

    Raises:
        ValueError: If the shape has fewer than two dimensions.

    Example:
        >>> fans(nn.Conv2d(8, 16, 3).weight.shape)
        (72, 144)
        >>> fans(nn.ConvTranspose2d(8, 16, 3).weight.shape, transposed=True)
        (72, 144)
    """
    if len(shape) < 2:
        raise ValueError(f"`shape` must have at least 2 dimensions, got {tuple(shape)}. A vector has no fans.")
    kernel = math.prod(shape[2:])
    first, second = shape[0] // groups * kernel, shape[1] * kernel
    return (first, second) if transposed else (second, first)


@torch.no_grad()
def init_(
    tensor: Tensor, scheme: InitScheme, *, gain: float = 1.0, groups: int = 1, transposed: bool = False
) -> Tensor:
    """Fill a weight in place.

    - **xavier**: ``std = 1 / sqrt(fan)``, without a gain.
    - **kaiming**: ``std = gain / sqrt(fan)``.
    - **uniform** schemes draw from ``[-sqrt(3) std, sqrt(3) std]``.
    - **orthogonal**: ``gain`` times a (semi-)orthogonal matrix for each group, with outputs as rows.

    It draws from torch's global generator, and the same numbers as ``torch.nn.init`` where the rule is the same.

    Args:
        tensor: Weight. Any shape for ``normal``, ``constant`` and ``zeros``, otherwise a shape that `fans` takes.
        scheme: The scheme.
        gain: Gain of the next activation. Only kaiming and orthogonal use it.
        groups: Groups of the convolution.
        transposed: Whether the weight is laid out as in ``nn.ConvTranspose2d``.

    Returns:
        ``tensor``.

    Raises:
        ValueError: If the scheme needs fans and the weight has none, or a fan of zero.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> w = init_(torch.empty(1000, 400), parse_scheme("kaiming_normal"), gain=2**0.5)
        >>> round(w.std().item(), 3)  # sqrt(2 / 400)
        0.071

    References:
        Glorot and Bengio, AISTATS 2010. He et al., ICCV 2015, arXiv:1502.01852. Saxe et al., 2013, arXiv:1312.6120.
    """
    if scheme.name == "normal":
        return nn.init.normal_(tensor, 0.0, scheme.value or 0.0)
    if scheme.name in ("constant", "zeros"):
        return nn.init.constant_(tensor, scheme.value or 0.0)
    fan_in, fan_out = fans(tensor.shape, groups=groups, transposed=transposed)
    if not fan_in or not fan_out:
        raise ValueError(
            f"`tensor` must have inputs and outputs, got shape {tuple(tensor.shape)}. Leave this layer out."
        )
    if scheme.name == "orthogonal":
        return _orthogonal_(tensor, gain, groups, transposed)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[scheme.mode or "fan_in"]
    std = (gain if scheme.needs_gain else 1.0) / math.sqrt(fan)
    if scheme.name.endswith("normal"):
        return nn.init.normal_(tensor, 0.0, std)
    return nn.init.uniform_(tensor, -math.sqrt(3.0) * std, math.sqrt(3.0) * std)


def _orthogonal_(tensor: Tensor, gain: float, groups: int, transposed: bool) -> Tensor:
    for block in tensor.chunk(groups):
        rows_first = block.transpose(0, 1) if transposed else block
        # QR knows no half precision
        drawn = torch.empty(
            rows_first.shape, dtype=torch.promote_types(tensor.dtype, torch.float32), device=tensor.device
        )
        rows_first.copy_(nn.init.orthogonal_(drawn, gain))
    return tensor
