"""Find the submodules whose output goes straight into an activation function, such as ``relu(self.fc(x))``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from lightning_trainingkit.nn.structure.activation_after import activation_of_function
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.tracing import LEAVES, Trace, UntraceableError

__all__ = ["FunctionalActivation", "functional_activations"]

_NOT_ELEMENTWISE = ("prelu", "glu", "rrelu", "linear")  # or with weights or random numbers of their own


@dataclass(frozen=True)
class FunctionalActivation:
    """An activation function that the output of a submodule goes straight into.

    Args:
        name: Name as in ``torch.nn.functional``.
        fn: The function. It does not change its argument.
    """

    name: str
    fn: Callable[[Tensor], Tensor]


def functional_activations(module: nn.Module) -> dict[str, FunctionalActivation]:
    """Find them by tracing the forward passes of a model and, where that fails, of its submodules.

    An activation after a sum, as at the end of a residual block, has no submodule before it and is not found.

    Args:
        module: The model, left unchanged.

    Returns:
        Name of the submodule to the activation. A submodule with several calls needs the same activation after each.
    """
    found: dict[str, FunctionalActivation | None] = {}
    _search(module, "", found)
    return {name: each for name, each in found.items() if each is not None}


def _search(module: nn.Module, prefix: str, found: dict[str, FunctionalActivation | None]) -> None:
    if isinstance(module, LEAVES) or next(module.children(), None) is None:
        return
    try:
        trace = Trace(module)
    except UntraceableError:
        for name, child in module.named_children():
            _search(child, join(prefix, name), found)
        return
    for node, target in trace.calls.items():
        name = join(prefix, target)
        if target in trace.opaque:
            _search(trace.module.get_submodule(target), name, found)
            continue
        activation = _straight_after(trace, node)
        same = found.get(name, activation)
        known = activation is not None and same is not None and same.name == activation.name
        found[name] = activation if known else None


def _straight_after(trace: Trace, node: fx.Node) -> FunctionalActivation | None:
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.op not in ("call_function", "call_method"):
        return None
    activation = activation_of_function(trace, user, node)
    if activation is None or activation.name in _NOT_ELEMENTWISE:
        return None
    in_place = str(user.target).endswith("_") or True in (*user.args, *user.kwargs.values())
    return FunctionalActivation(activation.name, partial(_on_copy, activation.fn) if in_place else activation.fn)


def _on_copy(fn: Callable[[Tensor], Any], y: Tensor) -> Tensor:
    result: Tensor = fn(y.clone())
    return result
