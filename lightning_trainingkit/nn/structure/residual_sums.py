"""Residual branches in one trace: sums of a branch and its own input, or a projection of it."""

import operator
from collections import Counter
from dataclasses import dataclass, replace

from torch import fx

from lightning_trainingkit.nn.structure import graph_values as values
from lightning_trainingkit.nn.structure.randomness import is_stochastic_depth
from lightning_trainingkit.nn.structure.row_order import keeps_rows
from lightning_trainingkit.nn.structure.tracing import Trace
from lightning_trainingkit.nn.structure.value_flow import ValueFlow, stack_of

__all__ = ["ResidualBranch", "residual_sums"]


@dataclass(frozen=True)
class ResidualBranch:
    """A branch that a forward adds to the branch's own input, or to a projection of this input.

    Args:
        block: Name of the module whose forward holds the addition.
        modules: Outermost submodules that the forward calls in this branch and nowhere else, in the order of the calls.
        end: The submodule whose output is the result of the branch, up to scales and reshaping.
        parameters: Names of all parameters that the branch reads.
        drops: Names of the layers for stochastic depth that the branch holds.
        rows: Whether the first dimension of ``end``'s output is the first dimension of the sum.
        fault: Why no module's output stands for the branch. Empty if ``end`` does.
        inseparable: Why the branch cannot be skipped, though the output of ``end`` can be dropped. Empty if it can.
    """

    block: str
    modules: tuple[str, ...]
    end: str
    parameters: tuple[str, ...]
    drops: tuple[str, ...] = ()
    rows: bool = True
    fault: str = ""
    inseparable: str = ""


@dataclass(frozen=True)
class _Sum:
    """An addition, its two summands, and the node from which the branch begins."""

    node: fx.Node
    skip: fx.Node
    result: fx.Node
    source: fx.Node


def residual_sums(trace: Trace) -> list[tuple[int, ResidualBranch]]:
    """Find the residual branches in a trace, each with the place of its sum in the whole graph."""
    flow = ValueFlow(trace)
    sums: dict[fx.Node, _Sum] = {}
    inside: dict[fx.Node, list[fx.Node]] = {}
    for node in flow.nodes:
        for skip, result in values.summands(node):
            source = _source(flow, skip, result, sums)
            if source is None:
                continue
            branch = flow.between(source, result)
            if values.is_branch(trace, branch, skip is source or not flow.layers_between(source, skip)):
                sums[node], inside[node] = _Sum(node, skip, result, source), branch
                break
    inner = [total for total in sums.values() if not any(other in inside[total.node] for other in sums)]
    place = {node: number for number, node in enumerate(trace.graph.nodes)}
    found = [(place[total.node], _describe(flow, total, inside[total.node], sums)) for total in inner]
    ends = Counter(each.end for _, each in found)
    for index, (number, each) in enumerate(found):
        if each.end and ends[each.end] < len(flow.calls[each.end]):  # some call is not the end of a branch
            found[index] = number, replace(each, end="", fault=each.inseparable, inseparable="")
    return found


def _source(flow: ValueFlow, skip: fx.Node, result: fx.Node, sums: dict[fx.Node, _Sum]) -> fx.Node | None:
    """The branch's input, if a summand is this input or a projection of it."""
    if skip not in flow.place or result not in flow.place or skip is result:
        return None
    node, layers = skip, 0
    while not flow.is_above(node, result):
        if node in sums:  # a second branch with the same input
            node = sums[node].skip
            continue
        layers += values.is_layer(flow.trace, node)
        before = [each for each in node.all_input_nodes if not values.is_lent(each)]
        if layers > 1 or len(before) != 1 or not values.projects(flow.trace, node) or before[0] not in flow.place:
            return None
        node = before[0]
    return node if node.op != "get_attr" and not values.asks(node) else None


def _describe(flow: ValueFlow, found: _Sum, branch: list[fx.Node], sums: dict[fx.Node, _Sum]) -> ResidualBranch:
    """Name the modules of a branch: the children that the block calls for it."""
    stacks = [stack_of(node) for node in [found.node, *branch]]
    depth = 0
    while all(len(stack) > depth for stack in stacks) and len({stack[depth] for stack in stacks}) == 1:
        depth += 1
    around = stack_of(found.node)[:depth]
    block = around[-1][1] if around else ""
    members = set(branch)
    outside = {
        stack_of(node)[depth][0]
        for node in flow.nodes
        if node not in members and stack_of(node)[:depth] == around and len(stack_of(node)) > depth
        if node is found.source or flow.is_above(node, found.source) or flow.is_above(found.source, node)
    }
    own: dict[str, None] = {}
    for node in branch:
        stack = stack_of(node)
        if len(stack) > depth and stack[depth][0] not in outside and len(flow.calls[stack[depth][1]]) == 1:
            own[stack[depth][1]] = None
    end = _end(flow, found, members, depth, own, _examples(found, sums))
    leaks = [node for node in branch if any(_leaks(flow, user, members, found.node) for user in node.users)]
    if leaks:
        text = f"{values.describe(flow.trace, leaks[-1])} inside of the branch is used outside of it too"
        late = end.node is None or any(node is end.node or flow.is_above(end.node, node) for node in leaks)
        end = replace(end, name="", fault=end.fault or text) if late else replace(end, inseparable=text)
    named = dict(flow.trace.module.named_modules(remove_duplicate=False))
    drops = [str(n.target) for n in branch if n.op == "call_module" and is_stochastic_depth(named[str(n.target)])]
    return ResidualBranch(
        block,
        (*(name for name in own if name != end.name), *([end.name] if end.name in own else [])),
        end.name,
        tuple(values.parameters_read(flow.trace, branch)),
        tuple(dict.fromkeys(drops)),
        rows=end.rows,
        fault=end.fault,
        inseparable="" if end.fault else end.inseparable,
    )


def _examples(found: _Sum, sums: dict[fx.Node, _Sum]) -> set[fx.Node]:
    """The values around a sum that have the same rows as it."""
    same = {found.node, found.skip, found.source}
    node: fx.Node | None = found.source
    while node in sums:
        same |= {sums[node].skip, sums[node].source}
        node = sums[node].source
    return same


def _leaks(flow: ValueFlow, user: fx.Node, branch: set[fx.Node], total: fx.Node) -> bool:
    if user.target is operator.getitem and isinstance(user.args[1], int) and user.args[1] > 0:
        return False  # beside the branch itself, such as a height and a width
    if user.target is operator.getitem and user.users:
        beside = [values.name_of(each) in ("cat", "concat") and total in each.all_input_nodes for each in user.users]
        if all(beside):
            return False  # channels beyond those of the input, as if zeros were appended to the input
    return user in flow.place and user not in branch and user is not total and not values.asks(user)


@dataclass(frozen=True)
class _End:
    """The submodule at the end of a branch and the node of its output, or the fault."""

    name: str
    rows: bool
    node: fx.Node | None = None
    fault: str = ""
    inseparable: str = ""


def _end(
    flow: ValueFlow,
    found: _Sum,
    branch: set[fx.Node],
    depth: int,
    own: dict[str, None],
    examples: set[fx.Node],
) -> _End:
    """Walk back from the sum to the submodule whose output is the branch, at second best one with several calls."""
    node, rows, shared = found.result, True, None
    while True:
        stack = stack_of(node)
        name = stack[depth][1] if len(stack) > depth else ""
        if name in own:
            return _End(name, rows, node)
        again = bool(name) and len(flow.calls[name]) > 1
        if again and node.op == "call_module" and str(node.target) == name and shared is None:
            shared = _End(name, rows, node)
        before = [each for each in node.all_input_nodes if each in branch]
        scales = values.passes_scale(flow.trace, node) if not name or node.op == "call_module" else False
        if len(before) != 1 or not scales:
            what = "which the forward calls several times" if again else "which is no submodule of its own"
            fault = f"it ends in {values.describe(flow.trace, node)}, {what}"
            return _End("", rows, fault=fault) if shared is None else replace(shared, inseparable=fault)
        rows = rows and (node.op == "call_module" or not values.moves(node) or keeps_rows(node, examples))
        node = before[0]
