"""Residual branches of a model, found by symbolic tracing and not by the names of classes."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import fx, nn

from lightning_trainingkit.nn.structure import graph_values as values
from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.structure.randomness import is_stochastic_depth
from lightning_trainingkit.nn.structure.tracing import Trace, UntraceableError

__all__ = ["ResidualBranch", "residual_branches"]


@dataclass(frozen=True)
class ResidualBranch:
    """A branch that a forward adds to the branch's own input, or to a projection of this input.

    Args:
        block: Name of the module whose forward holds the addition.
        modules: Outermost submodules that the forward calls in this branch and nowhere else, in the order of the calls.
        end: The submodule of ``modules`` whose output is the result of the branch, up to scales and reshaping.
        parameters: Names of all parameters that the branch reads.
        drops: Names of the layers for stochastic depth that the branch holds.
        rows: Whether the first dimension of ``end``'s output is the first dimension of the sum.
        fault: Why no module's output stands for the branch. Empty if ``end`` does.
    """

    block: str
    modules: tuple[str, ...]
    end: str
    parameters: tuple[str, ...]
    drops: tuple[str, ...] = ()
    rows: bool = True
    fault: str = ""


def residual_branches(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> list[ResidualBranch]:
    """Find the residual branches of a model, in the order in which its forward adds them.

    - **The other summand** is the branch's own input, or that input after at most one layer, norms and pooling.
    - **A branch** has weights and a nonlinearity. Sums of parallel layers, as in RepVGG, are none.
    - **No branches** are sums with position embeddings, and sums of the parts of a split, as in Res2Net.
    - **Branches around branches**, such as the skip over a whole network, do not count. The inner ones do.
    - **A part that cannot be traced** (control flow that depends on data) has an entry with a ``fault``, unless it
      belongs to a branch. The largest submodules below it are traced.

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
        if prefix and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield _unknown(prefix, str(error))
        for name, child in module.named_children():
            yield from _search(child, join(prefix, name), skip)
        return
    found: list[tuple[int, ResidualBranch]] = _Graph(trace).branches()
    order = {str(node.target): place for place, node in enumerate(trace.graph.nodes) if node.op == "call_module"}
    inside = tuple(f"{name}." for _, branch in found for name in branch.modules)
    for name, reason in trace.opaque.items():
        if any(name.startswith(f"{outer}.") for outer in trace.opaque):
            continue
        place = order.get(name, 0)
        if not f"{name}.".startswith(inside) or not inside:
            found.append((place, _unknown(name, reason)))
        for key, part in trace.module.get_submodule(name).named_children():
            found += [(place, each) for each in _search(part, join(name, key), skip)]
    for _, branch in sorted(found, key=lambda each: each[0]):
        yield _renamed(branch, prefix)


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


@dataclass(frozen=True)
class _Sum:
    """An addition, its two summands, and the node from which the branch begins."""

    node: fx.Node
    skip: fx.Node
    result: fx.Node
    source: fx.Node


class _Graph:
    """The values in a trace: which node's value enters which other node's value."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        live: set[fx.Node] = set()
        for node in reversed(trace.graph.nodes):
            if node.op == "output" or not live.isdisjoint(node.users):
                live.add(node)
        self.nodes = [node for node in trace.graph.nodes if node in live and not self._is_hidden(node)]
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self.above: dict[fx.Node, int] = {}  # bits of the nodes whose values enter a node
        for node in self.nodes:
            bits = 1 << self.place[node]
            for each in node.all_input_nodes if not values.asks(node) else ():
                bits |= self.above.get(each, 0)
            self.above[node] = bits
        self.calls: dict[str, set[str]] = {}
        for node in self.nodes:
            for key, name in _stack(node):
                self.calls.setdefault(name, set()).add(key)

    def branches(self) -> list[tuple[int, ResidualBranch]]:
        """Find the branches, each with the place of its sum in the whole graph."""
        sums: dict[fx.Node, _Sum] = {}
        inside: dict[fx.Node, list[fx.Node]] = {}
        for node in self.nodes:
            for skip, result in values.summands(node):
                source = self._source(skip, result, sums)
                if source is None:
                    continue
                branch = self._between(source, result)
                if values.is_branch(self.trace, branch, skip is source or not self._layers(source, skip)):
                    sums[node], inside[node] = _Sum(node, skip, result, source), branch
                    break
        inner = {node for node in sums if not any(other in inside[node] for other in sums)}
        place = {node: number for number, node in enumerate(self.trace.graph.nodes)}
        return [(place[node], self._describe(each, inside[node])) for node, each in sums.items() if node in inner]

    def _is_hidden(self, node: fx.Node) -> bool:
        """Whether a node was made inside of a part that could not be traced."""
        inside = [name for _, name in _stack(node)]
        if node in self.trace.calls:
            inside = inside[:-1]
        return any(name in self.trace.opaque for name in inside)

    def _is_above(self, node: fx.Node, other: fx.Node) -> bool:
        return node is not other and bool(self.above.get(other, 0) >> self.place[node] & 1)

    def _between(self, source: fx.Node, result: fx.Node) -> list[fx.Node]:
        later = self.nodes[self.place[source] + 1 : self.place[result] + 1]
        return [node for node in later if self._is_above(source, node) and (self.above[result] >> self.place[node] & 1)]

    def _layers(self, source: fx.Node, skip: fx.Node) -> int:
        return sum(values.is_layer(self.trace, node) for node in self._between(source, skip))

    def _source(self, skip: fx.Node, result: fx.Node, sums: dict[fx.Node, _Sum]) -> fx.Node | None:
        """The branch's input, if a summand is this input or a projection of it."""
        if skip not in self.place or result not in self.place or skip is result:
            return None
        node, layers = skip, 0
        while not self._is_above(node, result):
            if node in sums:  # a second branch with the same input
                node = sums[node].skip
                continue
            layers += values.is_layer(self.trace, node)
            before = [each for each in node.all_input_nodes if not values.is_lent(each)]
            if layers > 1 or len(before) != 1 or not values.projects(self.trace, node) or before[0] not in self.place:
                return None
            node = before[0]
        return node if node.op != "get_attr" and not values.asks(node) else None

    def _describe(self, found: _Sum, branch: list[fx.Node]) -> ResidualBranch:
        """Name the modules of a branch: the children that the block calls for it."""
        stacks = [_stack(node) for node in [found.node, *branch]]
        depth = 0
        while all(len(stack) > depth for stack in stacks) and len({stack[depth] for stack in stacks}) == 1:
            depth += 1
        around = _stack(found.node)[:depth]
        block = around[-1][1] if around else ""
        members = set(branch)
        outside = {
            _stack(node)[depth][0]
            for node in self.nodes
            if node not in members and _stack(node)[:depth] == around and len(_stack(node)) > depth
            if node is found.source or self._is_above(node, found.source) or self._is_above(found.source, node)
        }
        own: dict[str, None] = {}
        for node in branch:
            stack = _stack(node)
            if len(stack) > depth and stack[depth][0] not in outside and len(self.calls[stack[depth][1]]) == 1:
                own[stack[depth][1]] = None
        end, rows, fault = self._end(found, members, depth, own)
        leak = next((node for node in branch for user in node.users if self._leaks(user, members, found.node)), None)
        if leak is not None and not fault:
            fault = f"{values.describe(self.trace, leak)} inside of the branch is used outside of it too"
        named = dict(self.trace.module.named_modules(remove_duplicate=False))
        drops = [str(n.target) for n in branch if n.op == "call_module" and is_stochastic_depth(named[str(n.target)])]
        return ResidualBranch(
            block,
            (*(name for name in own if name != end), *([end] if end else [])),
            end,
            tuple(values.parameters_read(self.trace, branch)),
            tuple(dict.fromkeys(drops)),
            rows=rows,
            fault=fault,
        )

    def _leaks(self, user: fx.Node, branch: set[fx.Node], total: fx.Node) -> bool:
        if user.target is operator.getitem and isinstance(user.args[1], int) and user.args[1] > 0:
            return False  # beside the branch itself, such as a height and a width
        return user in self.place and user not in branch and user is not total and not values.asks(user)

    def _end(self, found: _Sum, branch: set[fx.Node], depth: int, own: dict[str, None]) -> tuple[str, bool, str]:
        """Walk back from the sum to the submodule whose output is the branch."""
        node, rows = found.result, True
        while True:
            stack = _stack(node)
            name = stack[depth][1] if len(stack) > depth else ""
            if name in own:
                return name, rows, ""
            before = [each for each in node.all_input_nodes if each in branch]
            kind = values.passes_scale(self.trace, node) if not name or node.op == "call_module" else ""
            if len(before) != 1 or not kind:
                what = values.describe(self.trace, node)
                again = name and len(self.calls[name]) > 1
                return (
                    "",
                    rows,
                    f"it ends in {what}, which "
                    + ("the forward calls several times" if again else "is no submodule of its own"),
                )
            rows = rows and kind == "rows"
            node = before[0]


def _stack(node: fx.Node) -> list[tuple[str, str]]:
    """Each call of a module around a node, outermost first, with the module's name."""
    found = [(key, str(entry[0])) for key, entry in node.meta.get("nn_module_stack", {}).items()]
    if node.op == "call_module" and (not found or found[-1][1] != node.target):  # a part that could not be traced
        found.append((f"{node.target}@{node.name}", str(node.target)))
    return found
