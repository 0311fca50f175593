"""The layers that stand alone before a module, and all traces of a model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.tracing import LAYERS, LEAVES, Trace, UntraceableError

__all__ = ["Source", "all_traces", "layers_before", "source_of", "target_name"]


@dataclass(frozen=True)
class Source:
    """Where the input of a module comes from.

    Args:
        layers: Names of the modules before it, each of which hands its output to the next one alone: a layer, or a
            layer and its BatchNorm. Empty if the input comes from anything more.
        words: What computes the input, in words.
    """

    layers: tuple[str, ...] = ()
    words: str = "a forward that no trace shows"


def all_traces(
    module: nn.Module, whole: Callable[[nn.Module], bool], prefix: str = ""
) -> Iterator[tuple[str, nn.Module, Trace | UntraceableError]]:
    """Trace a model, and each part that a trace does not show.

    Args:
        module: The model. It is left unchanged.
        whole: Tells which submodules stay one call.
        prefix: Name of the model, for the names of its parts.

    Yields:
        Name, module, and its trace or the reason why it has none.
    """
    if isinstance(module, LEAVES) or next(module.children(), None) is None:
        return
    try:
        trace = Trace(module, whole)
    except UntraceableError as error:
        yield prefix, module, error
        for name, child in module.named_children():
            yield from all_traces(child, whole, join(prefix, name))
        return
    yield prefix, module, trace
    for name in trace.opaque:
        yield from all_traces(module.get_submodule(name), whole, join(prefix, name))


def layers_before(model: nn.Module, names: list[str]) -> dict[str, Source]:
    """Find the layer before each of some modules.

    Args:
        model: The model. It is traced in evaluation and, for modules that do not run there, in its own mode.
        names: Names of the modules.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> layers_before(net, ["1"])["1"].layers
        ('0',)
    """
    with evaluating(model):
        found = _search(model, names)
    trained = [name for name in names if name not in found]  # such as classifiers that help training alone
    found |= _search(model, trained) if trained else {}
    return {name: found.get(name, Source()) for name in names}


def _search(model: nn.Module, names: list[str]) -> dict[str, Source]:
    modules = {id(model.get_submodule(name)): name for name in names}
    found: dict[str, Source] = {}
    for prefix, part, trace in all_traces(model, lambda each: id(each) in modules):
        if isinstance(trace, UntraceableError):
            continue
        for node in trace.graph.nodes:
            name = modules.get(id(part.get_submodule(str(node.target)))) if node.op == "call_module" else None
            if name is not None:
                before = node.all_input_nodes[0]
                again = Source(words=f"several calls, of which one follows {target_name(before)}")
                found[name] = again if name in found else source_of(trace, before, prefix)
    return found


def source_of(trace: Trace, node: fx.Node, prefix: str) -> Source:
    """Find the layer, or the layer and the BatchNorm, that alone compute a value which one user takes."""
    names: list[str] = []
    while node.op == "call_module" and str(node.target) not in trace.opaque:
        name = join(prefix, str(node.target))
        called = trace.module.get_submodule(str(node.target))
        if len(node.users) > 1:
            return Source(words=f"{name}, whose output {' and '.join(map(target_name, node.users))} take")
        if sum(trace_node.target == node.target for trace_node in trace.graph.nodes) > 1:
            return Source(words=f"{name}, which is called several times")
        if type(called) in LAYERS:
            return Source((name, *names), name)
        if not isinstance(called, _BatchNorm) or type(called).__module__ != _BatchNorm.__module__ or names:
            return Source(words=f"{name} ({type(called).__name__})")
        names.insert(0, name)
        node = node.all_input_nodes[0]
    return Source(words=f"`{target_name(node)}`")


def target_name(node: fx.Node) -> str:
    """Name of the function, method or module that a node calls."""
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))
