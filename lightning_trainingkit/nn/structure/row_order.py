"""Whether a traced operation keeps the first dimension of a tensor, which holds the examples of a batch."""

import operator
from collections.abc import Collection
from typing import Any

from torch import fx

from lightning_trainingkit.nn.structure.graph_values import name_of

__all__ = ["keeps_rows"]

_FROM = {"narrow", "flatten", "unsqueeze", "squeeze"}  # their first number is the first dimension that changes
_ALL = {"transpose", "swapaxes", "movedim", "moveaxis", "roll"}  # all numbers are dimensions that change


def keeps_rows(node: fx.Node, examples: Collection[fx.Node]) -> bool:
    """Whether the rows of an operation's output are the rows of its input. Where this is unknown, False.

    Args:
        node: A call that is linear in its first argument.
        examples: Values whose rows are known to be the examples. A reshape may ask them for their number.
    """
    name = name_of(node)
    if node.target is operator.getitem:
        index: Any = node.args[1]  # 0: the first of several outputs
        return bool(index == 0 or (isinstance(index, tuple) and index[0] == slice(None)))
    given = [*node.args[1:], *node.kwargs.values()]
    numbers: list[Any] = [part for each in given for part in (each if isinstance(each, tuple | list) else [each])]
    if name == "permute":
        return numbers[:1] == [0]
    if name in ("reshape", "view"):
        return bool(numbers) and _counts(numbers[0], examples)
    if name in ("squeeze", "unsqueeze") and numbers == [-1]:
        return True
    if name == "roll":
        numbers = numbers[len(numbers) // 2 :] if len(numbers) > 1 else []  # after the shifts
    changed = numbers if name in _ALL else numbers[:1] if name in _FROM else []
    return bool(changed) and all(isinstance(each, int) and each > 0 for each in changed)


def _counts(size: Any, examples: Collection[fx.Node]) -> bool:
    """Whether a value is the number of rows of one of the examples."""
    if not isinstance(size, fx.Node):
        return False
    if size.target == "size":
        return size.args[0] in examples and size.args[1:] == (0,)
    if size.target is operator.getitem and size.args[1] == 0 and isinstance(size.args[0], fx.Node):
        shape = size.args[0]
        is_shape = shape.args[1:] == (("shape",) if shape.target is getattr else ())
        return shape.target in (getattr, "size") and is_shape and shape.args[0] in examples
    return False
