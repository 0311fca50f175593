"""What in a forward is random, or changes from call to call."""

from torch import fx, nn

__all__ = ["is_random", "stirs"]

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
