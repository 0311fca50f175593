"""How the nodes of a trace pass values on: sums, projections, scales and nonlinearities."""

import operator
from collections.abc import Iterator

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lightning_trainingkit.functional.gain import ACTIVATIONS
from lightning_trainingkit.nn.structure.randomness import is_stochastic_depth
from lightning_trainingkit.nn.structure.tracing import LAYERS, LEAVES, NORMS, PASSED_ATTRIBUTES, Trace

__all__ = [
    "asks",
    "describe",
    "is_branch",
    "is_layer",
    "is_lent",
    "moves",
    "name_of",
    "parameters_read",
    "passes_scale",
    "projects",
    "summands",
]

_SUMS = {"add", "add_", "iadd", "__add__", "__iadd__"}
_QUESTIONS = {
    "size",
    "dim",
    "numel",
    "ndimension",
    "stride",
    "zeroslike",
    "oneslike",
    "emptylike",
    "newzeros",
    "newones",
}
_LAYOUT = {
    *("reshape", "view", "flatten", "unflatten", "permute", "transpose", "movedim", "roll", "swapaxes", "tensor_split"),
    *("narrow", "squeeze", "unsqueeze", "rot90", "moveaxis", "expand"),
}
_UNCHANGED = {"contiguous", "clone", "to", "float", "dropout", "dropout2d", "featuredropout", "typeas", "alphadropout"}
_SCALES = {"mul", "imul", "mul_", "truediv", "div", "itruediv"}
_HOMOGENEOUS = {"relu", "relu_", "leakyrelu", "leakyrelu_"}  # f(c x) = c f(x) for a positive c
_LINEAR_MODULES = (*LAYERS, _BatchNorm, nn.Identity, _DropoutNd, nn.Flatten, nn.Unflatten, nn.PixelShuffle)
_POOLS = {
    "avgpool2d",
    "maxpool2d",
    "adaptiveavgpool2d",
    "lppool2d",
    "interpolate",
    "blurpool2d",
    "maxpool2dwithindices",
}
_NONLINEAR = {
    *(name.replace("_", "") for name in ACTIVATIONS if name != "linear"),
    *("softmax", "scaleddotproductattention", "multiheadattentionforward", "layernorm", "groupnorm", "rmsnorm"),
    *("hardtanh", "threshold", "clamp", "logsoftmax", "normalize"),
}


def name_of(node: fx.Node) -> str:
    """Name of a traced function or method, without underscores inside."""
    name = str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", ""))
    return (
        name if name in _SUMS or name in _SCALES or name in _HOMOGENEOUS else name.strip("_").replace("_", "").lower()
    )


def module_of(trace: Trace, node: fx.Node) -> nn.Module | None:
    """The module that a node calls."""
    return trace.module.get_submodule(str(node.target)) if node.op == "call_module" else None


def asks(node: fx.Node) -> bool:
    """Whether a node reads a shape, a device or a type, and not values."""
    if node.target is getattr:
        return node.args[1] not in PASSED_ATTRIBUTES
    return node.op in ("call_function", "call_method") and name_of(node) in _QUESTIONS


def summands(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """The two tensors that a node adds, in both orders."""
    if node.op not in ("call_function", "call_method") or name_of(node) not in _SUMS:
        return
    given = [*node.args[:2], *(node.kwargs[name] for name in ("input", "other") if name in node.kwargs)]
    pair = [each for each in given if isinstance(each, fx.Node)]
    if len(pair) == 2 and "alpha" not in node.kwargs:
        yield pair[0], pair[1]
        yield pair[1], pair[0]


def is_layer(trace: Trace, node: fx.Node) -> bool:
    """Whether a node multiplies with weights."""
    if node.op == "call_module":
        called = module_of(trace, node)
        return isinstance(called, LEAVES) or (str(node.target) in trace.opaque and _weights(trace, node))
    return name_of(node) in ("linear", "conv1d", "conv2d", "conv3d")


def projects(trace: Trace, node: fx.Node) -> bool:
    """Whether a node may belong to the projection on the way around a branch."""
    called = module_of(trace, node)
    if called is not None:
        kind = type(called).__name__.lower()
        linear = isinstance(called, (*_LINEAR_MODULES, *NORMS)) or "pool" in kind or "pad" in kind
        known = str(node.target) not in trace.opaque or not any(True for _ in called.parameters())
        return (linear or is_stochastic_depth(called)) and known
    name = name_of(node)
    if node.target is operator.getitem:  # x[:, :, ::2, ::2] is a projection, one part of a split is none
        index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        return any(isinstance(each, slice) and each.step not in (None, 1) for each in index)
    if name in _SCALES and sum(not is_lent(each) for each in node.all_input_nodes) == 1:
        return True
    norms = ("batchnorm", "layernorm", "groupnorm", "pad", "conv2d", "linear", "concat", "cat")
    return name in _POOLS or name in _LAYOUT or name in _UNCHANGED or name in norms


def is_branch(trace: Trace, nodes: list[fx.Node], identity: bool) -> bool:
    """Whether nodes hold weights and a nonlinearity, and more layers than a projection beside them."""
    has_weights = any(_weights(trace, node) for node in nodes)
    layers = sum(is_layer(trace, node) for node in nodes)
    return has_weights and any(_bends(trace, node) for node in nodes) and (identity or layers > 1)


def _weights(trace: Trace, node: fx.Node) -> bool:
    called = module_of(trace, node)
    if called is not None:
        return any(True for _ in called.parameters())
    return any(each.op == "get_attr" for each in node.all_input_nodes) and name_of(node) not in _SCALES


def _bends(trace: Trace, node: fx.Node) -> bool:
    called = module_of(trace, node)
    if called is not None:
        return not (isinstance(called, _LINEAR_MODULES) or is_stochastic_depth(called))
    return name_of(node).strip("_") in _NONLINEAR


def passes_scale(trace: Trace, node: fx.Node) -> bool:
    """Whether a scaled or zero input scales the output. Its elements may move."""
    called = module_of(trace, node)
    if called is not None:
        linear = (nn.ReLU, nn.LeakyReLU, nn.Identity, _DropoutNd)
        return isinstance(called, linear) or is_stochastic_depth(called)
    name = name_of(node)
    if name in _SCALES and len(node.args) > 1:
        numbers = [each for each in node.args if not isinstance(each, fx.Node)]
        lent = [each for each in node.all_input_nodes if is_lent(each)]
        return len(numbers) + len(lent) == 1
    return name in _UNCHANGED or name in _HOMOGENEOUS or moves(node)


def moves(node: fx.Node) -> bool:
    """Whether a function moves elements, or takes some of them."""
    return node.target is operator.getitem or name_of(node) in _LAYOUT or name_of(node) == "pad"


def is_lent(node: fx.Node) -> bool:
    """Whether a value comes from parameters alone, in few steps."""
    return _lent(node, 8)


def _lent(node: fx.Node, steps: int) -> bool:
    if node.op == "get_attr" or not steps:
        return node.op == "get_attr"
    return bool(node.all_input_nodes) and all(_lent(each, steps - 1) for each in node.all_input_nodes)


def parameters_read(trace: Trace, nodes: list[fx.Node]) -> list[str]:
    """Name the parameters that the nodes read, directly or through modules."""
    known = {name for name, _ in trace.module.named_parameters(remove_duplicate=False)}
    found: dict[str, None] = {}
    for node in nodes:
        if node.op == "call_module":
            prefix = str(node.target)
            called = trace.module.get_submodule(prefix)
            inner = called.named_parameters(remove_duplicate=False)
            found.update(dict.fromkeys(f"{prefix}.{name}" for name, _ in inner))
        queue = list(node.all_input_nodes)
        while queue:
            each = queue.pop()
            if each.op == "get_attr":
                found.update({str(each.target): None} if str(each.target) in known else {})
            elif is_lent(each):
                queue += each.all_input_nodes
    return list(found)


def describe(trace: Trace, node: fx.Node) -> str:
    """Name a node for a sentence."""
    called = module_of(trace, node)
    return f"{node.target} ({type(called).__name__})" if called is not None else f"the function {name_of(node)}"
