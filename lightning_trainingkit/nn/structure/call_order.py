"""The parameters that a forward uses, in order, and its last layers."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import fx, nn
from torch.nn.parameter import is_lazy

from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.tracing import (
    LAYERS,
    LEAVES,
    NORMS,
    PASSED_ATTRIBUTES,
    Trace,
    UntraceableError,
    layer_names,
)

__all__ = ["CallOrder", "layers_of", "call_order"]

_LISTS = (nn.ModuleList, nn.ModuleDict)
_QUESTIONS = ("size", "dim", "numel")


@dataclass(frozen=True)
class CallOrder:
    """The parameters and last layers that the forward of a module uses in evaluation.

    Args:
        order: Names of its parameters, in the order of their use, as often as they are used.
        last: Names of its last layers, in the order of their call. No other layer takes the output of a last layer.
        hooked: Names of submodules with a forward hook, in a part whose last layer no trace shows. Features may leave
            through the hook, so that ``last`` is a guess.
    """

    order: list[str]
    last: list[str]
    hooked: list[str] = field(default_factory=list)


def layers_of(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> list[str]:
    """Name the layers of a module, each once: linear and convolutional layers, and other modules with a matrix.

    Such a module (an embedding, a cosine classifier) is no norm and holds no linear or convolutional layer.
    """
    found = layer_names(module, skip)
    inside = tuple(f"{name}." if name else "" for name in found)
    skipped = {id(part) for each in module.modules() if isinstance(each, skip) for part in each.modules()}
    for name, each in module.named_modules():
        if isinstance(each, (*LAYERS, *NORMS)) or id(each) in skipped or (inside and name.startswith(inside)):
            continue
        if any(_is_matrix(parameter) for parameter in each.parameters(recurse=False)) and not layer_names(each):
            found.append(name)
    return found


def call_order(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> CallOrder:
    """Trace the forward of a module in eval mode. If that fails, trace its children in the order of definition.

    Args:
        module: Any module; names are relative to it. It is left unchanged.
        skip: Types of submodules to leave out.

    Example:
        >>> found = call_order(nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2)))
        >>> found.order, found.last
        (['0.weight', '2.weight', '2.bias'], ['2'])
    """
    with evaluating(module):
        return _uses(module, skip)


def _uses(module: nn.Module, skip: tuple[type[nn.Module], ...]) -> CallOrder:
    layers = layers_of(module, skip)
    own = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if layers == [""]:
        return CallOrder(own, [""])
    if not layers and type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None:
        return CallOrder(own, [])  # a norm or an activation: a trace would show nothing more
    missing = False
    if not isinstance(module, LEAVES):
        try:
            traced = _in_graph(Trace(module), layers, skip)
            return traced if traced.last else replace(traced, hooked=_hooked(module))
        except UntraceableError as error:
            missing = _misses_a_tensor(error)
    order = [name for name in own if "." not in name] if isinstance(module, LEAVES) else []
    last: list[str] = []
    hooked = _hooked(module) if missing else []
    for name, child in module.named_children():
        if isinstance(child, skip):
            continue
        part = _uses(child, skip)
        order += [join(name, each) for each in part.order]
        last = [join(name, each) for each in part.last] or last
        hooked += [join(name, each) for each in part.hooked]
    if isinstance(module, _LISTS) and all(name in layers for name in module._modules):
        last = list(module._modules)  # several classifiers, as a list
    return CallOrder(order, last, list(dict.fromkeys(hooked)))


def _in_graph(trace: Trace, layers: list[str], skip: tuple[type[nn.Module], ...]) -> CallOrder:
    """Read the order from a graph, and find the layers whose output no other layer takes."""
    module, order, hooked = trace.module, [], []
    hidden = tuple(f"{name}." for name in trace.opaque)
    skipped = tuple(name for name, each in module.named_modules() if isinstance(each, skip))
    used: dict[fx.Node, list[str]] = {}
    with_input = {node for node in trace.graph.nodes if node.op == "placeholder"}
    for node in trace.graph.nodes:
        if not with_input.isdisjoint(node.all_input_nodes):
            with_input.add(node)
    for node in trace.graph.nodes:
        target = str(node.target)
        if target in skipped or target.startswith((*hidden, *(f"{name}." for name in skipped))):
            continue
        if node in trace.calls:
            part = _uses(module.get_submodule(target), skip)
            order += [join(target, each) for each in part.order]
            hooked += [join(target, each) for each in part.hooked]
            if part.last:
                used[node] = [join(target, each) for each in part.last]
        elif node.op == "get_attr":
            order.append(target)
            holder = target.rpartition(".")[0]
            if holder in layers:  # a function uses its weight
                used.update({each: [holder] for each in _meets_input(node, with_input)})
    taken: set[fx.Node] = set()
    alive: set[fx.Node] = set()
    for node in reversed(trace.graph.nodes):
        if node.op == "output" or not alive.isdisjoint(node.users):
            alive.add(node)
        if any(user in alive and (user in used or user in taken) for user in node.users):
            taken.add(node)
    last = [name for node, names in used.items() if node in alive and node not in taken for name in names]
    return CallOrder(order, list(dict.fromkeys(last)), list(dict.fromkeys(hooked)))


def _misses_a_tensor(error: UntraceableError) -> bool:
    """Whether a forward may have failed because its hooks stored no tensor, and not because of the trace's proxies."""
    cause = error.__cause__
    if isinstance(cause, fx.proxy.TraceError | NotImplementedError):
        return False
    return not any(word in str(cause) for word in ("Proxy", "symbolic"))


def _hooked(module: nn.Module) -> list[str]:
    """Name the submodules with a forward hook of the user. Hooks of torch compute weights, and do not count."""
    found = {
        name: [*each._forward_hooks.values(), *each._forward_pre_hooks.values()]
        for name, each in module.named_modules()
    }
    own = ("torch.nn.utils", "torch.ao")
    return [
        name
        for name, hooks in found.items()
        if name
        and any(not str(getattr(hook, "__module__", "") or type(hook).__module__).startswith(own) for hook in hooks)
    ]


def _meets_input(weight: fx.Node, with_input: set[fx.Node]) -> Iterator[fx.Node]:
    """Yield the calls that combine values computed from a weight alone with values computed from the input."""
    for user in weight.users:
        asks = user.target is getattr and user.args[1] not in PASSED_ATTRIBUTES
        if asks or (user.op == "call_method" and user.target in _QUESTIONS):
            continue
        if user in with_input:
            yield user
        else:
            yield from _meets_input(user, with_input)


def _is_matrix(parameter: nn.Parameter) -> bool:
    return is_lazy(parameter) or sum(size > 1 for size in parameter.shape) > 1
