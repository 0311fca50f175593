"""Residual branches of a model, found by symbolic tracing and not by the names of classes."""

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.randomness import is_stochastic_depth
from lightning_trainingkit.nn.structure.residual_sums import ResidualBranch, residual_sums
from lightning_trainingkit.nn.structure.tracing import Trace, UntraceableError

__all__ = ["ResidualBranch", "residual_branches"]


def residual_branches(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> list[ResidualBranch]:
    """Find the residual branches of a model, in the order in which its forward adds them.

    - **The other summand** is the branch's own input, or that input after at most one layer, norms and pooling.
    - **A branch** has weights and a nonlinearity. Sums of parallel layers, as in RepVGG, are none.
    - **No branches** are sums with position embeddings, and sums of the parts of a split, as in Res2Net.
    - **Branches around branches**, such as the skip over a whole network, do not count. The inner ones do.
    - **A part with weights that cannot be traced** (control flow that depends on data) has an entry with a ``fault``,
      unless it belongs to a branch. The largest submodules below it are traced.

    The module is left unchanged.

    Args:
        module: Any module; names are relative to it.
        skip: Types of submodules to leave out.

    Example:
        >>> from torchvision.models import resnet18
        >>> branches = residual_branches(resnet18())
        >>> len(branches), branches[0].block, branches[0].end
        (8, 'layer1.0', 'layer1.0.bn2')
    """
    with evaluating(module):
        return list(_search(module, "", skip))


def _search(module: nn.Module, prefix: str, skip: tuple[type[nn.Module], ...]) -> Iterator[ResidualBranch]:
    if isinstance(module, skip) or next(module.children(), None) is None:
        return
    try:
        trace = Trace(module, whole=lambda each: is_stochastic_depth(each) or isinstance(each, skip))
    except UntraceableError as error:
        if prefix and _has_weights(module) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield _unknown(prefix, str(error))
        for name, child in module.named_children():
            yield from _search(child, join(prefix, name), skip)
        return
    found: list[tuple[int, ResidualBranch]] = residual_sums(trace)
    order = {str(node.target): place for place, node in enumerate(trace.graph.nodes) if node.op == "call_module"}
    inside = tuple(f"{name}." for _, branch in found for name in branch.modules)
    for name, reason in trace.opaque.items():
        if any(name.startswith(f"{outer}.") for outer in trace.opaque):
            continue
        place = order.get(name, 0)
        outside = not inside or not f"{name}.".startswith(inside)
        if outside and _has_weights(trace.module.get_submodule(name)):
            found.append((place, _unknown(name, reason)))
        for key, part in trace.module.get_submodule(name).named_children():
            found += [(place, each) for each in _search(part, join(name, key), skip)]
    for _, branch in sorted(found, key=lambda each: each[0]):
        yield _renamed(branch, prefix)


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _unknown(block: str, reason: str) -> ResidualBranch:
    return ResidualBranch(block, (), "", (), fault=reason)


def _renamed(branch: ResidualBranch, prefix: str) -> ResidualBranch:
    def full(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(join(prefix, name) for name in names)

    return replace(
        branch,
        block=join(prefix, branch.block),
        modules=full(branch.modules),
        end=branch.end and join(prefix, branch.end),
        parameters=full(branch.parameters),
        drops=full(branch.drops),
    )
