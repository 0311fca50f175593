"""Cut the traced forward of a partly frozen module in two."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_trainingkit.functional.content_keys import content_keys
from lightning_trainingkit.nn._chance import is_random, stirs
from lightning_trainingkit.nn._tracing import Trace, Tracer, UntraceableError

__all__ = ["CannotCutError", "FrozenFront", "Setting", "cut", "held", "is_of_images"]

Setting = tuple[nn.Module, str]


class CannotCutError(ValueError):
    """The frozen part of a model can't be kept; the text says why."""


@dataclass(frozen=True)
class FrozenFront:
    """A forward in two parts.

    Args:
        front: Images ``(N, ...)`` to what the frozen part says of them, tensors ``(N, ...)``. No gradient passes it.
        rest: Images and these tensors to what the whole forward returns.
        end: Names of the last modules or functions in front of the cut.
        parameters: Parameters of the front, by the module that holds them and their name in it.
        settings: Plain public attributes that the forward was cut with, by module and name; others may make another.
        code: What both parts do, in words that can be compared: of the front, and of the rest.
    """

    front: Callable[[Tensor], tuple[Tensor, ...]]
    rest: Callable[..., Any]
    end: tuple[str, ...]
    parameters: tuple[tuple[nn.Module, str, nn.Parameter], ...]
    settings: dict[Setting, Any]
    code: tuple[str, str] = ("", "")

    def changed(self) -> set[Setting]:
        """Attributes that are no longer what they were when the forward was cut."""
        return {key for key, value in self.settings.items() if vars(key[0]).get(key[1]) != value}

    def in_place(self) -> bool:
        """Whether the front still holds the parameters that it was cut with."""
        return all(module._parameters.get(name) is held for module, name, held in self.parameters)

    def version(self) -> int:
        """Grows with each change of the front's parameters in place."""
        return sum(held._version for _, _, held in self.parameters)


class _PartsTracer(Tracer):
    """Keeps whole what is wholly frozen or wholly open, and looks into what is mixed or has no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[nn.Module] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        open_ones = {p.requires_grad for p in m.parameters()}
        if open_ones:
            whole = len(open_ones) == 1
        else:
            whole = m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)
        if not whole:
            self.opened.append(m)
        return whole


def cut(module: nn.Module, x: Tensor, ignore: Collection[Setting]) -> FrozenFront | None:
    tracer = _PartsTracer()
    try:
        trace = Trace(module, tracer)
    except UntraceableError as error:
        raise CannotCutError(f"{error}.") from error
    with _constants(module, tracer):
        found = _cut_traced(module, trace, x)
    if found is None:
        return None
    opened = dict.fromkeys([module, *tracer.opened])
    watched = {(each, name): value for each in opened for name, value in vars(each).items() if _is_plain(name, value)}
    return replace(found, settings={key: value for key, value in watched.items() if key not in ignore})


def _cut_traced(module: nn.Module, trace: Trace, x: Tensor) -> FrozenFront | None:
    nodes = list(trace.graph.nodes)
    images = next(node for node in nodes if node.op == "placeholder")
    behind, reason = _behind(trace, nodes)
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
    parameters = [held for node in needed for held in _parameters_of(module, node)]
    if not parameters:
        if reason:
            raise CannotCutError(f"{reason}, and nothing frozen comes before it.")
        return None
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
    return FrozenFront(graphs[0].forward, graphs[1].forward, end, tuple(parameters), {}, code)


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


def _behind(trace: Trace, nodes: list[fx.Node]) -> tuple[set[fx.Node], str]:
    """Nodes that open parameters or chance have touched, and the first reason that is no parameter."""
    behind: set[fx.Node] = set()
    reason = ""
    for node in nodes:
        why = ""
        if node.op == "call_module":
            called = trace.module.get_submodule(str(node.target))
            if any(p.requires_grad for p in called.parameters()):
                behind.add(node)
            else:
                why = stirs(called, str(node.target))
        elif node.op == "get_attr" and isinstance(found := _attribute(trace.module, str(node.target)), nn.Parameter):
            if found.requires_grad:
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
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == count


def _attribute(module: nn.Module, name: str) -> Any:
    path, _, last = name.rpartition(".")
    return getattr(module.get_submodule(path), last)


def _parameters_of(module: nn.Module, node: fx.Node) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    if node.op == "call_module":
        yield from held(module.get_submodule(str(node.target)))
    elif node.op == "get_attr":
        path, _, last = str(node.target).rpartition(".")
        holder = module.get_submodule(path)
        if isinstance(found := holder._parameters.get(last), nn.Parameter):
            yield holder, last, found


def held(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                yield each, name, parameter


def _is_plain(name: str, value: Any) -> bool:
    return not name.startswith("_") and (value is None or isinstance(value, bool | int | float | str | tuple))


def _is_constant(name: str, value: Any) -> bool:
    return name.startswith("_tensor_constant") and isinstance(value, Tensor)
