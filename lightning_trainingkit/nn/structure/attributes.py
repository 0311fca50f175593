"""Restore the attributes that a forward sets in its modules."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["attributes_put_back"]


@contextmanager
def attributes_put_back(module: nn.Module, modules: Iterable[nn.Module] | None = None) -> Iterator[Callable[[], bool]]:
    """Restore all attributes of a module and its submodules, with the entries of dicts, lists and sets among them.

    Args:
        module: The module.
        modules: The modules to restore, in place of ``module`` and its submodules.

    Yields:
        A function that returns whether an attribute or an entry was changed.
    """
    found: list[Any] = []
    for each in modules if modules is not None else module.modules():
        found += [vars(each), *(value for value in vars(each).values() if isinstance(value, dict | list | set))]
    kept = [(held, held.copy() if held else ()) for held in found]  # most are empty dicts of hooks

    def changed() -> bool:
        return any(not _same(held, before) for held, before in kept)

    try:
        yield changed
    finally:
        for held, before in kept:
            if not _same(held, before):
                held.clear()
                held.extend(before) if isinstance(held, list) else held.update(before)


def _same(one: Any, other: Any) -> bool:
    """Whether two dicts, lists or sets hold the same objects."""
    if len(one) != len(other):
        return False
    if not other:
        return True
    if isinstance(one, dict):
        return all(name in one and one[name] is value for name, value in other.items())
    if isinstance(one, list):
        return all(mine is theirs for mine, theirs in zip(one, other, strict=True))
    return {id(each) for each in one} == {id(each) for each in other}
