"""The activation after each layer of a model, found by symbolic tracing."""

import copy
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from lightning_trainingkit.functional.gain import ACTIVATIONS, LINEAR, Activation
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.tracing import (
    LEAVES,
    PASSED_ATTRIBUTES,
    Trace,
    UntraceableError,
    layer_names,
)

__all__ = ["FollowingActivations", "activation_after", "activation_of_function"]

# Their forward cannot be traced, and begins with a projection.
_TRANSFORMERS = (nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder)


def _key(name: str) -> str:
    return name.replace("_", "").lower()


_NONLINEAR = {_key(name): name for name in [*ACTIVATIONS, "threshold", "clamp"] if name != "linear"}
# Products with other weights, as functions; then functions that do not pass a tensor's values on.
_STOPS = {
    *("linear", "bilinear", "embedding", "conv1d", "conv2d", "conv3d"),
    *("convtranspose1d", "convtranspose2d", "convtranspose3d", "matmul", "mm", "bmm", "baddbmm", "addmm", "einsum"),
    *("scaleddotproductattention", "multiheadattentionforward"),
    *("size", "dim", "numel", "ndimension", "eq", "ne", "lt", "le", "gt", "ge", "argmax", "argmin", "assert"),
    *("zeroslike", "oneslike", "emptylike", "fulllike", "randlike", "randnlike"),
    *("newzeros", "newones", "newempty", "newfull"),
}


@dataclass(frozen=True)
class FollowingActivations:
    """The activation after each layer of a module.

    Args:
        known: Layer name to the activation that follows it, ``linear`` where none does.
        unknown: Layer name to the reason why no forward that calls it can be traced.
    """

    known: dict[str, Activation]
    unknown: dict[str, str]


def activation_after(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> FollowingActivations:
    """Find the activation that follows each linear and convolutional layer, called as a module, function or method.

    - **A path** begins at a layer. It passes through normalisation, pooling, dropout, reshaping, sums, concatenation
      and indexing. It ends at the next layer with weights or at the output. The nearest activation on any path counts.
    - **A forward that cannot be traced** (control flow that depends on data) or is missing: the largest submodules
      below it are traced.

    The module is left unchanged.

    Args:
        module: Any module; names are relative to it.
        skip: Types of submodules to leave out.

    Returns:
        One entry for each layer, known or unknown. A layer with two names has the first.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(32, 10))
        >>> {name: activation.name for name, activation in activation_after(net).known.items()}
        {'0': 'gelu', '4': 'linear'}
    """
    found: dict[str, Activation | str] = dict.fromkeys(layer_names(module, skip), "")
    _settle(module, "", f"the forward of {type(module).__name__} does not call it", found)
    return FollowingActivations(
        known={name: after for name, after in found.items() if isinstance(after, Activation)},
        unknown={name: after for name, after in found.items() if isinstance(after, str)},
    )


def _settle(module: nn.Module, prefix: str, why: str, found: dict[str, Activation | str]) -> None:
    """Fill in the empty entries of a part: trace it, then trace its children for the layers that it did not reach."""
    names = [name for name in (join(prefix, name) for name in layer_names(module)) if found.get(name) == ""]
    if not names:
        return
    if isinstance(module, LEAVES):
        found.update(dict.fromkeys(names, why))
        return
    try:
        trace = Trace(module)
    except UntraceableError as error:
        # The reason is the forward that goes through a list of modules, not the list.
        why = why if isinstance(module, nn.ModuleList | nn.ModuleDict) else str(error)
    else:
        reached = {join(prefix, name): after for name, after in _followers(trace).items()}
        found.update({name: after for name, after in reached.items() if name in names})
        why = f"the forward of {type(module).__name__} does not call it"
    for name, child in module.named_children():
        _settle(child, join(prefix, name), why, found)


def _followers(trace: Trace) -> dict[str, Activation | str]:
    """Layer name to its activation, or to the reason why it is unknown, for the layers that the trace reaches."""
    found: dict[str, Activation | str] = {}
    for node, target in trace.calls.items():
        if target not in trace.opaque:
            for name in layer_names(trace.module.get_submodule(target)):
                found.setdefault(join(target, name), _after(trace, node))
    # A function may also use the weight of a layer, as in torchvision's Swin.
    weights = {f"{name}.weight": name for name in layer_names(trace.module)}
    opaque = tuple(f"{name}." for name in trace.opaque)
    for node in trace.graph.nodes:
        target = str(node.target)
        if node.op == "get_attr" and target in weights and not target.startswith(opaque):
            for user in node.users:
                if user.target is not getattr:
                    found.setdefault(weights[target], _after(trace, user))
    return found


def _after(trace: Trace, layer: fx.Node) -> Activation | str:
    queue = deque((user, layer) for user in layer.users)
    seen = set(layer.users)
    hidden = ""
    while queue:
        node, source = queue.popleft()
        called = trace.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        activation = activation_of_function(trace, node, source) if called is None else _from_module(called)
        if activation is not None:
            return activation
        if called is not None and str(node.target) in trace.opaque:
            if not isinstance(called, _TRANSFORMERS):
                hidden = f"it is followed by {node.target}: {trace.opaque[str(node.target)]}"
        elif not (_stops(node) if called is None else isinstance(called, LEAVES)):
            queue.extend((user, node) for user in node.users if user not in seen)
            seen.update(node.users)
    return hidden or LINEAR


def _stops(node: fx.Node) -> bool:
    if node.target is getattr:
        return node.args[1] not in PASSED_ATTRIBUTES
    return _key(_name(node)) in _STOPS


def _from_module(module: nn.Module) -> Activation | None:
    name = _NONLINEAR.get(_key(type(module).__name__))
    if name is None or not type(module).__module__.startswith("torch.nn"):
        return None
    if name in ("prelu", "glu"):
        return _special(name, getattr(module, "weight", None))
    return Activation(name, copy.deepcopy(module).eval())


def activation_of_function(trace: Trace, node: fx.Node, source: fx.Node) -> Activation | None:
    """The activation that a traced function or method applies to ``source``, or None if it is none."""
    name = _NONLINEAR.get(_key(_name(node)))
    if name is None:
        return None
    if name in ("prelu", "glu"):
        lent = [arg.target for arg in node.all_input_nodes if arg.op == "get_attr"]
        return _special(name, trace.module.get_parameter(str(lent[0])) if lent else None)
    if node.all_input_nodes != [source]:  # a computed parameter: take the function's default
        return Activation(name, ACTIVATIONS[name]) if name in ACTIVATIONS else None
    return Activation(name, partial(_call, node, source))


def _special(name: str, weight: Tensor | None) -> Activation:
    """Make PReLU or GLU. The root mean square of PReLU's slopes, one a channel, gives the mean second moment."""
    if name == "glu" or weight is None:
        return Activation(name, ACTIVATIONS[name])
    slope = float(weight.detach().double().square().mean().sqrt())
    return Activation(name, partial(ACTIVATIONS[name], slope=slope))


def _call(node: fx.Node, source: fx.Node, z: Tensor) -> Tensor:
    """Call a traced function or method again, with ``z`` for ``source``."""
    args = fx.node.map_arg(node.args, lambda n: z if n is source else n)
    kwargs = dict(fx.node.map_arg(node.kwargs, lambda n: z if n is source else n))
    if "training" in kwargs:
        kwargs["training"] = False
    function: Any = getattr(type(z), node.target) if isinstance(node.target, str) else node.target
    result: Tensor = function(*args, **kwargs)
    return result


def _name(node: fx.Node) -> str:
    return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", ""))
