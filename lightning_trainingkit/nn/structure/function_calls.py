"""Modules whose forward calls a function, found by symbolic tracing."""

from collections.abc import Iterable

from torch import nn

from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.tracing import Trace, UntraceableError

__all__ = ["calls_of_functions"]


def calls_of_functions(
    module: nn.Module, functions: Iterable[str], *, skip: tuple[type[nn.Module], ...] = ()
) -> list[str]:
    """Name the modules whose forward calls one of the functions itself. The module is left unchanged.

    Args:
        module: Any module; names are relative to it. What cannot be traced is searched below.
        functions: Names of functions, such as ``max_pool2d``.
        skip: Types of submodules to leave out.

    Example:
        >>> from torchvision.models import inception_v3
        >>> names = calls_of_functions(inception_v3(init_weights=False), ["avg_pool2d"])
        >>> names[:2]
        ['Mixed_5b', 'Mixed_5c']
    """
    with evaluating(module):
        return list(dict.fromkeys(_search(module, "", set(functions), skip)))


def _search(module: nn.Module, prefix: str, functions: set[str], skip: tuple[type[nn.Module], ...]) -> list[str]:
    if isinstance(module, skip):
        return []
    try:
        trace = Trace(module, whole=lambda each: isinstance(each, skip))
    except UntraceableError:
        children = module.named_children()
        return [each for name, child in children for each in _search(child, join(prefix, name), functions, skip)]
    found = []
    for node in trace.graph.nodes:
        if node.op == "call_function" and getattr(node.target, "__name__", "") in functions:
            stack = [str(entry[0]) for entry in node.meta.get("nn_module_stack", {}).values()]
            found.append(join(prefix, stack[-1] if stack else "") or type(module).__name__)
    for name in trace.opaque:
        for key, child in module.get_submodule(name).named_children():
            found += _search(child, join(prefix, join(name, key)), functions, skip)
    return found
