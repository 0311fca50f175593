"""Cut the traced forward of a partly frozen module in two."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lightning_trainingkit.functional.content_keys import content_keys, fingerprint
from lightning_trainingkit.nn.structure.randomness import is_random, stirs
from lightning_trainingkit.nn.structure.tracing import Trace, Tracer, UntraceableError
from lightning_trainingkit.nn.transfer.attribute_reads import Reads, is_still, plain_attributes, reads_noted

__all__ = [
    "CannotCutError",
    "FrozenFront",
    "IsOpen",
    "cut",
    "held_tensors",
    "is_of_images",
    "not_wholly_open",
    "refuse_hooks",
]

IsOpen = Callable[[nn.Parameter], bool]


class CannotCutError(ValueError):
    """The frozen part of a model can't be kept; the text says why."""


@dataclass(frozen=True)
class FrozenFront:
    """A forward in two parts.

    Args:
        front: Images ``(N, ...)`` to what the frozen part says of them, tensors ``(N, ...)``. No gradient passes it.
        rest: Images and these tensors to what the whole forward returns.
        end: Names of the last modules or functions in front of the cut.
        tensors: Tensors of the front, by the dict that holds them and their name in it.
        read: Tensors that the rest reads by name, likewise.
        settings: Plain attributes of each module that the front calls whole: how many attributes it has in all, and
            those.
        traced: Modules whose own forward was looked into.
        code: What both parts do, in words that can be compared: of the front, and of the rest.
        reads: What the traced forwards have read from modules, and what they found.
        said: What the front has just said of the images that it was cut with, None where it was not asked.
    """

    front: Callable[[Tensor], tuple[Tensor, ...]]
    rest: Callable[..., Any]
    end: tuple[str, ...]
    tensors: tuple[tuple[dict[str, Any], str, Tensor], ...]
    settings: dict[nn.Module, tuple[int, dict[str, Any]]]
    traced: frozenset[nn.Module]
    code: tuple[str, str] = ("", "")
    read: tuple[tuple[dict[str, Any], str, Tensor], ...] = ()
    reads: Reads = field(default_factory=Reads)
    said: tuple[Tensor, ...] | None = None

    def changed(self) -> set[nn.Module]:
        """Modules with an attribute, such as their mode, that is not what it was when the forward was cut."""
        return self.reads.changed() | {
            module
            for module, (count, plain) in self.settings.items()
            if len(own := vars(module)) != count
            or any(own.get(name) is not value and not is_still(own.get(name), value) for name, value in plain.items())
        }

    def replaced(self) -> bool:
        """Whether the rest would read another tensor than its module holds now."""
        return any(holder.get(name) is not held for holder, name, held in self.read)

    def in_place(self) -> bool:
        """Whether the front still holds the tensors that it was cut with, none of which wants a gradient."""
        return all(holder.get(name) is held and not held.requires_grad for holder, name, held in self.tensors)

    def version(self) -> int:
        """Grows with each change of the front's tensors in place, but through ``.data``."""
        return sum(held._version for _, _, held in self.tensors)

    def content(self) -> tuple[int, ...]:
        """Changes with the values of the front's tensors, however they are written to."""
        return fingerprint(held for _, _, held in self.tensors)


class _PartsTracer(Tracer):
    """Keeps whole what is wholly frozen or wholly open, and looks into what is mixed or has no parameters."""

    def __init__(self, is_open: IsOpen) -> None:
        super().__init__()
        self.is_open = is_open
        self.traced: list[nn.Module] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.looks_into(m):
            self.traced.append(m)
            return False
        return True

    def looks_into(self, m: nn.Module) -> bool:
        """Whether its forward is traced, and not called as it is."""
        states = {self.is_open(p) for p in m.parameters()}
        plain = m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)
        return len(states) != 1 if states else not plain


def cut(module: nn.Module, x: Tensor, is_open: IsOpen) -> FrozenFront | None:
    """Trace the forward, and cut it after the last value that neither open parameters nor chance have touched.

    Raises:
        CannotCutError: If that is not possible; where nothing frozen comes before chance, it says so.
    """
    tracer = _PartsTracer(is_open)
    # What is looked into is not called.
    inside = [(name, each) for name, each in module.named_modules() if each is not module and tracer.looks_into(each)]
    refuse_hooks(inside, before=True)
    try:
        with reads_noted(module) as reads:
            trace = Trace(module, tracer)
    except UntraceableError as error:
        raise CannotCutError(
            f"{error}. What is frozen as a whole need not be traced: let `training_step` call it and the rest one "
            "after the other."
        ) from error
    for node in trace.graph.nodes:  # numbers of numpy are no Python
        node.args = fx.node.map_aggregate(node.args, _plain_number)
        node.kwargs = fx.node.map_aggregate(node.kwargs, _plain_number)
    with _constants(module, tracer):
        found = _cut_traced(module, trace, x, is_open)
    if found is None:
        return None
    return replace(found, traced=frozenset([module, *tracer.traced]), reads=reads.looked_up())


def refuse_hooks(modules: Iterable[tuple[str, nn.Module]], *, before: bool = False) -> None:
    """Raise CannotCutError if one of these modules, by name, has a forward hook, or one that comes before it."""
    for name, each in modules:
        if each._forward_hooks or (before and each._forward_pre_hooks):
            kind = "forward hook" if each._forward_hooks else "forward pre-hook"
            raise CannotCutError(f"`{name}` ({type(each).__name__}) has a {kind}, which would not see every image.")


def not_wholly_open(module: nn.Module, is_open: IsOpen) -> list[nn.Module]:
    """The module and its parts, but those all of whose parameters are open."""
    parameters = {each: list(each.parameters()) for each in module.modules()}
    return [each for each, mine in parameters.items() if not mine or not all(map(is_open, mine))]


def _cut_traced(module: nn.Module, trace: Trace, x: Tensor, is_open: IsOpen) -> FrozenFront | None:
    nodes = list(trace.graph.nodes)
    images = next(node for node in nodes if node.op == "placeholder")
    behind, reason = _behind(trace, nodes, is_open)
    values = _values(module, [node for node in nodes if node not in behind], images, x)
    while True:
        for node in nodes:
            if not behind.isdisjoint(node.all_input_nodes):
                behind.add(node)
        edge = _crossing(nodes, behind, images)
        odd = [node for node in edge if not is_of_images(values.get(node), len(x))]
        if not odd:
            break
        behind |= set(odd)  # a size, say: the rest finds it again
    needed = _ancestors([*edge, *(node for node in nodes if node not in behind and _in_place(node))])
    tensors = [held for node in nodes if node in needed for held in _tensors_of(module, node)]
    if not any(isinstance(held, nn.Parameter) for _, _, held in tensors):
        if reason:
            raise CannotCutError(f"{reason}, and nothing frozen comes before it.")
        return None
    settings: dict[nn.Module, tuple[int, dict[str, Any]]] = {}
    for node in needed:
        if node.op == "call_module":
            called = module.get_submodule(str(node.target))
            refuse_hooks(called.named_modules(prefix=str(node.target)))
            settings |= plain_attributes(called.modules())
    front, rest = fx.Graph(), fx.Graph()
    ours: dict[fx.Node, fx.Node] = {images: front.placeholder("x")}
    theirs: dict[fx.Node, fx.Node] = {images: rest.placeholder("x")}
    theirs |= {node: rest.placeholder(f"feature_{number}") for number, node in enumerate(edge)}
    try:
        for node in nodes:
            if node in needed and node not in ours:
                ours[node] = front.node_copy(node, lambda n: ours[n])
            elif node in behind:
                theirs[node] = rest.node_copy(node, lambda n: theirs[n])
    except KeyError as error:
        raise CannotCutError(f"the forward of {type(module).__name__} takes more than one tensor.") from error
    front.output(tuple(ours[node] for node in edge))
    graphs = [fx.GraphModule(module, graph) for graph in (front, rest)]
    end = tuple(str(node.target) if node.op == "call_module" else node.name for node in edge)
    made = [
        str(content_keys(value[None]).tolist()) for name, value in vars(module).items() if _is_constant(name, value)
    ]
    code = (graphs[0].code + "".join(made), graphs[1].code)
    read = tuple(held for node in behind if node.op == "get_attr" for held in _tensors_of(module, node))
    said = tuple(values[node] for node in edge)
    front_of, rest_of = (graph.forward for graph in graphs)
    return FrozenFront(front_of, rest_of, end, tuple(tensors), settings, frozenset(), code, read, said=said)


@contextmanager
def _constants(module: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Hold tensors that the forward makes from nothing where the graph looks for them, which is in the module."""
    made = {name: tensor for tensor, name in tracer.tensor_attrs.items() if name.startswith("_tensor_constant")}
    made = {name: tensor for name, tensor in made.items() if not hasattr(module, name)}
    vars(module).update(made)
    try:
        yield
    finally:
        for name in made:
            vars(module).pop(name, None)


def _behind(trace: Trace, nodes: list[fx.Node], is_open: IsOpen) -> tuple[set[fx.Node], str]:
    """Nodes that open parameters or chance have touched, and the first reason that is no parameter."""
    behind: set[fx.Node] = set()
    reason = ""
    for node in nodes:
        why = ""
        if node.op == "call_module":
            called = trace.module.get_submodule(str(node.target))
            if any(map(is_open, called.parameters())):
                behind.add(node)
            else:
                why = stirs(called, str(node.target))
        elif node.op == "get_attr" and isinstance(found := _attribute(trace.module, str(node.target)), nn.Parameter):
            if is_open(found):
                behind.add(node)
        elif node.op in ("call_function", "call_method") and is_random(node):
            why = f"`{node.name}` is random in training"
        elif node.op == "output":
            behind.add(node)
        if why:
            behind.add(node)
        if any(each in behind for each in node.all_input_nodes):
            behind.add(node)
            why = ""
        reason = reason or why
    return behind, reason


def _in_place(node: fx.Node) -> bool:
    """Whether it may change a value that others use, and is needed though nobody uses what it returns."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    acts = node.op in ("call_function", "call_method") and str(name).endswith("_") and not str(name).endswith("__")
    return acts or bool(node.kwargs.get("inplace"))


def _crossing(nodes: list[fx.Node], behind: set[fx.Node], images: fx.Node) -> list[fx.Node]:
    return [node for node in nodes if node not in behind and node is not images and not behind.isdisjoint(node.users)]


def _ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


@torch.no_grad()
def _values(module: nn.Module, nodes: list[fx.Node], images: fx.Node, x: Tensor) -> dict[fx.Node, Any]:
    """What the nodes in front say of some images."""
    values: dict[fx.Node, Any] = {images: x.detach().clone()}
    for node in nodes:
        if node.op in ("placeholder", "output") or not all(each in values for each in node.all_input_nodes):
            continue
        args: Any = fx.node.map_arg(node.args, lambda n: values[n])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: values[n])
        target: Any = node.target
        if node.op == "call_module":
            values[node] = module.get_submodule(target)(*args, **kwargs)
        elif node.op == "get_attr":
            values[node] = _attribute(module, target)
        elif node.op == "call_method":
            values[node] = getattr(args[0], target)(*args[1:], **kwargs)
        else:
            values[node] = target(*args, **kwargs)
    return values


def is_of_images(value: Any, count: int) -> bool:
    """Whether a value is a tensor with one row for each image."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == count


def _attribute(module: nn.Module, name: str) -> Any:
    path, _, last = name.rpartition(".")
    return getattr(module.get_submodule(path), last)


def _tensors_of(module: nn.Module, node: fx.Node) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    if node.op == "call_module":
        yield from held_tensors(module.get_submodule(str(node.target)))
    elif node.op == "get_attr":
        path, _, last = str(node.target).rpartition(".")
        holder = module.get_submodule(path)
        for tensors in (holder._parameters, holder._buffers, vars(holder)):
            if isinstance(found := tensors.get(last), Tensor) and not _is_constant(last, found):
                yield tensors, last, found


def held_tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Parameters and buffers of a module and its parts, with the dict that holds each and its name in it."""
    for each in module.modules():
        for tensors in (each._parameters, each._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    yield tensors, name, tensor


def _plain_number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_constant(name: str, value: Any) -> bool:
    return name.startswith("_tensor_constant") and isinstance(value, Tensor)
