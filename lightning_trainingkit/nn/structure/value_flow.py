"""Which node's value enters which other node's value in a trace, and which modules a node belongs to."""

from torch import fx

from lightning_trainingkit.nn.structure import graph_values as values
from lightning_trainingkit.nn.structure.tracing import Trace

__all__ = ["ValueFlow", "stack_of"]


class ValueFlow:
    """The live values in a trace. Values inside of parts that cannot be traced are left out.

    Args:
        trace: The trace.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        live: set[fx.Node] = set()
        for node in reversed(trace.graph.nodes):
            if node.op == "output" or not live.isdisjoint(node.users):
                live.add(node)
        self.nodes = [node for node in trace.graph.nodes if node in live and not self._is_hidden(node)]
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self._above: dict[fx.Node, int] = {}  # bits of the nodes whose values enter a node
        for node in self.nodes:
            bits = 1 << self.place[node]
            for each in node.all_input_nodes if not values.asks(node) else ():
                bits |= self._above.get(each, 0)
            self._above[node] = bits
        self.calls: dict[str, set[str]] = {}
        """Module name to its calls."""
        for node in self.nodes:
            for key, name in stack_of(node):
                self.calls.setdefault(name, set()).add(key)

    def is_above(self, node: fx.Node, other: fx.Node) -> bool:
        """Whether a node's value enters another node's value."""
        return node is not other and bool(self._above.get(other, 0) >> self.place[node] & 1)

    def between(self, source: fx.Node, result: fx.Node) -> list[fx.Node]:
        """The nodes on all ways from a source to a result, which is one of them."""
        later = self.nodes[self.place[source] + 1 : self.place[result] + 1]
        return [node for node in later if self.is_above(source, node) and (self._above[result] >> self.place[node] & 1)]

    def layers_between(self, source: fx.Node, result: fx.Node) -> int:
        """Number of layers on all ways from a source to a result."""
        return sum(values.is_layer(self.trace, node) for node in self.between(source, result))

    def _is_hidden(self, node: fx.Node) -> bool:
        """Whether a node was made inside of a part that could not be traced."""
        inside = [name for _, name in stack_of(node)]
        if node in self.trace.calls:
            inside = inside[:-1]
        return any(name in self.trace.opaque for name in inside)


def stack_of(node: fx.Node) -> list[tuple[str, str]]:
    """Each call of a module around a node, outermost first, with the module's name."""
    found = [(key, str(entry[0])) for key, entry in node.meta.get("nn_module_stack", {}).items()]
    if node.op == "call_module" and (not found or found[-1][1] != node.target):  # a part that could not be traced
        found.append((f"{node.target}@{node.name}", str(node.target)))
    return found
