"""The one list of layers that draw random numbers."""

from collections.abc import Iterable

from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["is_random", "layers_that_draw", "stirs"]

_FRACTIONAL = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
# Children whose rate a module may read to drop by itself where its own flag says training, as fused attention does
_READ_BY_PARENT = {"attn_drop", "attn_dropout", "attention_dropout", "patch_drop"}

_FUNCTIONS = ("dropout", "drop_path", "stochastic", "rand", "bernoulli", "multinomial", "rrelu", "fractional")
_WHOLE_NAMES = ("normal", "normal_", "uniform_")
_MODULES = (
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.modules.batchnorm._NormBase,
    nn.MultiheadAttention,
    nn.RNNBase,
)


def stirs(module: nn.Module, name: str = "") -> str:
    """Why two calls with the same images may differ, empty if they don't."""
    for inner, each in module.named_modules():
        # A class that is not torch's, without parameters: DropPath, or an activation. Nobody knows.
        unknown = not type(each).__module__.startswith("torch.nn") and next(each.parameters(), None) is None
        leaf = next(each.children(), None) is None
        if each.training and (isinstance(each, _MODULES) or (unknown and leaf)):
            where = ".".join(part for part in (name, inner) if part) or type(each).__name__
            return f"`{where}` ({type(each).__name__}) is in training mode"
    return ""


def is_random(node: fx.Node) -> bool:
    """Whether a call of a function or method in a traced forward draws random numbers or takes batch statistics."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "batch_norm":
        return bool(node.kwargs.get("training", node.args[5] if len(node.args) > 5 else False))
    if not any(part in str(name).lower() for part in _FUNCTIONS) and name not in _WHOLE_NAMES:
        return False
    return bool(node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True))


def layers_that_draw(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Find the modules that draw random numbers in training mode, with a rate above 0.

    Args:
        modules: Modules to look at, each for itself.

    Example:
        >>> {type(layer).__name__ for layer in layers_that_draw([nn.Linear(2, 2), nn.Dropout(0.1), nn.Dropout(0.0)])}
        {'Dropout'}
    """
    candidates = list(modules)
    drawing = {module for module in candidates if _draws(module)}
    return drawing | {module for module in candidates if _reads_rates(module, drawing)}


def _draws(module: nn.Module) -> bool:
    """Tell whether a module draws random numbers if its own flag says training."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RReLU):
        return bool(module.lower < module.upper)
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    if isinstance(module, nn.RNNBase):
        return bool(module.dropout > 0 and module.num_layers > 1)  # it is between layers
    if isinstance(module, _FRACTIONAL):
        return module._random_samples is None
    kind = type(module).__name__.lower()
    drops = "drop" in kind or "stochasticdepth" in kind
    known = str(type(module).forward.__module__).partition(".")[0] in ("torchvision", "timm")
    return any(
        isinstance(value, int | float) and value > 0 and not isinstance(value, bool)
        for name, value in vars(module).items()
        if ((drops or known) and "drop" in name) or (drops and name in ("p", "prob", "probability", "rate"))
    )


def _reads_rates(module: nn.Module, on: set[nn.Module]) -> bool:
    if isinstance(module, nn.TransformerEncoderLayer):
        return not on.isdisjoint(module.modules())
    return any(name in _READ_BY_PARENT and child in on for name, child in module.named_children())
