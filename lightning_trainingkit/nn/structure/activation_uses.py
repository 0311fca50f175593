"""Where a model applies activations: as modules, and as functions inside a forward."""

from dataclasses import dataclass, field

from torch import fx, nn

from lightning_trainingkit.functional.gain import ACTIVATIONS
from lightning_trainingkit.nn.structure.layers_before import Source, all_traces, source_of, target_name
from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.tracing import LEAVES, Trace, UntraceableError

__all__ = ["ActivationUses", "FunctionalUse", "ModuleUse", "activation_modules", "activation_uses"]

_OTHERS = {"linear", "sin", "cos", "glu"}  # no activation, positions, and a function that halves the channels
_NAMES = {name.replace("_", ""): name for name in ACTIVATIONS if name not in _OTHERS} | {"swish": "silu"}
_BOUNDED = {
    "sigmoid",
    "tanh",
    "hardsigmoid",
    "logsigmoid",
    "softplus",
}  # as gates and as outputs they are no activations
_PRODUCTS = {"mul", "imul", "mul_", "multiply"}
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass
class ModuleUse:
    """How the forward of a model uses one activation module.

    Args:
        calls: Number of calls that the trace shows, 0 where no trace reaches it.
        is_gate: Whether it is a bounded function whose output is a factor, or leaves the model.
        source: Where its input comes from. Of several calls it is the last one's.
        dropouts: Names of the dropout layers after it, before the next layer with weights.
    """

    calls: int = 0
    is_gate: bool = False
    source: Source = field(default_factory=Source)
    dropouts: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class FunctionalUse:
    """An activation that a forward calls as a function or a method.

    Args:
        function: Name of the activation.
        owner: Name of the module whose forward calls it.
        after: Name of the module before it. Empty if it is none.
    """

    function: str
    owner: str
    after: str

    def __str__(self) -> str:
        return f"{self.function} after {self.after}" if self.after else f"{self.function} in {self.owner or 'forward'}"


@dataclass(frozen=True)
class ActivationUses:
    """The activations of a model.

    Args:
        modules: Each activation module by name.
        functions: The activations that are called as functions.
        untraced: Name of each module whose own forward no trace shows, and the reason.
    """

    modules: dict[str, ModuleUse]
    functions: list[FunctionalUse]
    untraced: dict[str, str]


def activation_name(module: nn.Module) -> str | None:
    """Name of an activation module as in ``torch.nn.functional``, or None for other modules."""
    if next(module.children(), None) is not None:
        return None
    kind = type(module)
    written = str(getattr(module, "original_name", kind.__name__))  # of TorchScript, so that it can be refused
    name = _NAMES.get(written.replace("_", "").lower().removesuffix("me"))
    known = kind.__module__.partition(".")[0] in ("torch", "torchvision", "timm")
    return name if known else None


def activation_modules(model: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> dict[str, nn.Module]:
    """Activation modules of a model by name, each once, outside of submodules of the skipped types."""
    outside = {part for each in model.modules() if isinstance(each, skip) for part in each.modules()}
    found = {name: each for name, each in model.named_modules() if name and activation_name(each)}
    return {name: each for name, each in found.items() if each not in outside}


def activation_uses(model: nn.Module) -> ActivationUses:
    """Find the activations of a model by tracing its forward, in evaluation and in its own mode. No layer is run.

    Args:
        model: The model. It is left unchanged.
    """
    names = {id(each): name for name, each in activation_modules(model).items()}
    modules = {name: ModuleUse() for name in names.values()}
    with evaluating(model):
        found = _search(model, names)
    own = _search(model, names)
    for name in modules:
        uses = [use for use in (found.modules.get(name), own.modules.get(name)) if use is not None]
        modules[name] = max(uses, key=lambda use: use.calls, default=ModuleUse())
    return ActivationUses(modules, list(dict.fromkeys([*found.functions, *own.functions])), own.untraced)


def _search(model: nn.Module, names: dict[int, str]) -> ActivationUses:
    found = ActivationUses({}, [], {})
    for prefix, module, trace in all_traces(model, lambda each: id(each) in names):
        if isinstance(trace, UntraceableError):
            if not isinstance(module, nn.ModuleList | nn.ModuleDict) and "has no forward" not in str(trace):
                found.untraced[prefix] = str(trace)
                found.functions.extend(FunctionalUse(name, prefix, "") for name in _named_in_code(module))
            continue
        for node in trace.graph.nodes:
            if node.op in ("call_function", "call_method"):
                _note_function(node, prefix, found)
            elif node.op == "call_module":
                name = names.get(id(module.get_submodule(str(node.target))))
                if name is not None:
                    _note_module(trace, node, prefix, found.modules.setdefault(name, ModuleUse()))
    return found


def _named_in_code(module: nn.Module) -> list[str]:
    """Activations that the code of a forward names, and that are no attributes of the module."""
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    names = [name for name in getattr(code, "co_names", ()) if not hasattr(module, name)]
    found = [_NAMES.get(name.replace("_", "").lower()) for name in names]
    return [name for name in found if name is not None and name not in _BOUNDED]


def _note_module(trace: Trace, node: fx.Node, prefix: str, use: ModuleUse) -> None:
    use.calls += 1
    kind = activation_name(trace.module.get_submodule(str(node.target)))
    use.is_gate = use.is_gate or (kind in _BOUNDED and _gates(node))
    use.source = source_of(trace, node.all_input_nodes[0], prefix)
    use.dropouts |= {join(prefix, name) for name in _dropouts_after(trace, node)}


def _note_function(node: fx.Node, prefix: str, found: ActivationUses) -> None:
    function = _NAMES.get(target_name(node).replace("_", "").lower())
    if function is None or (function in _BOUNDED and _gates(node)):
        return
    stack = node.meta.get("nn_module_stack") or {}
    owner = str(next(reversed(stack.values()), ("",))[0])
    source = node.all_input_nodes[0]
    after = join(prefix, str(source.target)) if source.op == "call_module" else ""
    found.functions.append(FunctionalUse(function, join(prefix, owner), after))


def _gates(node: fx.Node) -> bool:
    """Whether the values are a factor, or leave the model without a layer behind them."""
    names = [
        user.target if isinstance(user.target, str) else getattr(user.target, "__name__", "") for user in node.users
    ]
    return any(
        user.op == "output" or user.target in _PRODUCTS or name in ("mul", "multiply")
        for user, name in zip(node.users, names, strict=True)
    )


def _dropouts_after(trace: Trace, node: fx.Node) -> set[str]:
    found: set[str] = set()
    queue, seen = list(node.users), set(node.users)
    while queue:
        user = queue.pop()
        called = trace.module.get_submodule(str(user.target)) if user.op == "call_module" else None
        if type(called) in _DROPOUTS:
            found.add(str(user.target))
        if not isinstance(called, LEAVES) and (called is None or activation_name(called) is None):
            new = [each for each in user.users if each not in seen]
            queue += new
            seen.update(new)
    return found
