"""Choose the layers whose outputs are observed, and say how their outputs are laid out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_trainingkit.functional.statistics import SATURATION
from lightning_trainingkit.nn.diagnostics.functional_activations import FunctionalActivation, functional_activations
from lightning_trainingkit.nn.structure.names import plain_names
from lightning_trainingkit.nn.structure.parameter_patterns import match, no_match
from lightning_trainingkit.nn.structure.tracing import LAYERS

__all__ = ["ObservedLayer", "observed_layers"]

_NO_ACTIVATION = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
_ACTIVATIONS = tuple(
    kind
    for name in nn.modules.activation.__all__
    if issubclass(kind := getattr(nn.modules.activation, name), nn.Module) and kind not in _NO_ACTIVATION
)
_CHANNELS_SECOND = (
    *LAYERS[1:],
    *(nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LocalResponseNorm),
)
_CHANNELS_LAST = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
_WITHOUT_FORWARD = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class ObservedLayer:
    """A layer whose output is observed.

    Args:
        name: Name in the model, without the parts that ``torch.compile`` adds.
        module: The layer.
        parent: The module whose forward calls the layer, if it may call it more than once.
        unit_dim: Dimension of the units (channels or features): 1, -1, or None where the number of dimensions decides.
        second: Numbers of units of the model's layers that put them in dimension 1.
        last: Numbers of units of the model's layers that put them in the last dimension.
        batch_dim: Dimension of the images.
        activation: Function to apply to the output before it is observed, or None.
        saturation: Key of ``SATURATION``, or None if the activation cannot saturate.
        bounds: Bounds of ``hardtanh``.
    """

    name: str
    module: nn.Module
    parent: nn.Module | None
    unit_dim: int | None
    second: frozenset[int]
    last: frozenset[int]
    batch_dim: int
    activation: Callable[[Tensor], Tensor] | None
    saturation: str | None
    bounds: tuple[float, float]


def observed_layers(module: nn.Module, patterns: str | Iterable[str] | None = None) -> list[ObservedLayer]:
    """Choose layers by name. The default is the activations, or the linear and convolutional layers if there are none.

    Args:
        module: The model.
        patterns: A pattern or several, over the names of submodules. A pattern that matches layers without submodules
            chooses those alone.

    Raises:
        TypeError: If a pattern is no text, or a chosen layer is quantised.
        ValueError: If there is no pattern, or a pattern matches no layer.
    """
    named = plain_names(dict(module.named_modules(remove_duplicate=False)))
    named = {name: each for name, each in named.items() if name and ".parametrizations" not in f".{name}"}
    functions: dict[str, FunctionalActivation] = {}
    if patterns is not None:
        names = _by_patterns([patterns] if isinstance(patterns, str) else list(patterns), named)
    else:
        functions = functional_activations(module)
        names = [name for name, each in named.items() if isinstance(each, _ACTIVATIONS) or name in functions]
        names = names or [name for name, each in named.items() if isinstance(each, LAYERS)]
        inside = tuple(f"{name}." for name, each in named.items() if isinstance(each, nn.MultiheadAttention))
        names = [name for name in names if not name.startswith(inside)]
        if not names:
            raise ValueError(
                f"`layers` must name layers of {type(module).__name__}, which has no activation, linear or "
                f"convolutional layer as a submodule, got None. Submodules: {', '.join(list(named)[:20]) or 'none'}."
            )
    chosen = {id(named[name]): name for name in reversed(names)}  # a shared layer has its first name
    for name in chosen.values():
        if "quantized" in type(named[name]).__module__:
            raise TypeError(
                f"`layers` must name layers with floating-point outputs, got {name!r}, a quantised "
                f"{type(named[name]).__name__}. Quantised layers cannot be trained: leave it out."
            )
    return [_describe(name, named, module, functions.get(name)) for name in reversed(chosen.values())]


def _by_patterns(patterns: list[str], named: dict[str, nn.Module]) -> list[str]:
    if not patterns or not all(patterns):
        raise ValueError(
            f"`layers` must hold at least one pattern and no empty one, got {patterns!r}. Leave it out for the default."
        )
    leaves = [
        name for name, each in named.items() if all(child == "parametrizations" for child, _ in each.named_children())
    ]
    found: list[str] = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"`layers` must hold names or patterns, got {pattern!r}. Write layers=['net.*'], say.")
        matched = match(pattern, leaves) or match(pattern, named)
        if not matched:
            raise no_match("layers", "match a layer", pattern, named)
        found += matched
    return [name for name in named if name in set(found)]


def _describe(
    name: str,
    named: dict[str, nn.Module],
    root: nn.Module,
    function: FunctionalActivation | None,
) -> ObservedLayer:
    layer = named[name]
    kind = type(layer).__name__.lower() if function is None else function.name
    ancestors = [*(named.get(name[:end], root) for end in range(len(name) - 1, 0, -1) if name[end] == "."), root]
    parent = next(each for each in ancestors if not isinstance(each, _WITHOUT_FORWARD))
    return ObservedLayer(
        name,
        layer,
        parent=None if isinstance(parent, nn.Sequential) else parent,
        unit_dim=_unit_dim(name, named),
        second=frozenset() if function or _has_own(layer) else _sizes(named, _CHANNELS_SECOND),
        last=frozenset() if function or _has_own(layer) else _sizes(named, _CHANNELS_LAST),
        batch_dim=_batch_dim(layer, ancestors),
        activation=None if function is None else function.fn,
        saturation=kind if kind in SATURATION and (function or isinstance(layer, _ACTIVATIONS)) else None,
        bounds=(layer.min_val, layer.max_val) if isinstance(layer, nn.Hardtanh) else (-1.0, 1.0),
    )


def _unit_dim(name: str, named: dict[str, nn.Module]) -> int | None:
    """Look at the layer, then at the layers that are registered before it, the nearest one first."""
    names = list(named)
    for before in names[names.index(name) :: -1]:
        if isinstance(named[before], _CHANNELS_SECOND):
            return 1
        if isinstance(named[before], _CHANNELS_LAST):
            return -1
    return None


def _has_own(layer: nn.Module) -> bool:
    return isinstance(layer, (*_CHANNELS_SECOND, *_CHANNELS_LAST))


def _sizes(named: dict[str, nn.Module], kinds: tuple[type[nn.Module], ...]) -> frozenset[int]:
    """Numbers of units that layers of these kinds put out."""
    sizes = (
        getattr(each, "out_features", None) or getattr(each, "out_channels", None)
        for each in named.values()
        if isinstance(each, kinds)
    )
    return frozenset(size for size in sizes if size)


def _batch_dim(layer: nn.Module, ancestors: list[nn.Module]) -> int:
    blocks = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    around = (
        [layer]
        if isinstance(layer, nn.RNNBase | nn.MultiheadAttention)
        else [each.self_attn for each in ancestors if isinstance(each, blocks)]
    )
    return int(any(not each.batch_first for each in around))
