"""Put back what a forward sets in its modules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["attributes_put_back"]


@contextmanager
def attributes_put_back(module: nn.Module) -> Iterator[Callable[[], bool]]:
    """Put back all attributes of a module and its submodules; give a function that tells whether any was set."""
    kept = [(vars(each), dict(vars(each))) for each in module.modules()]

    def changed() -> bool:
        return any(
            held.keys() != found.keys() or any(held[name] is not value for name, value in found.items())
            for held, found in kept
        )

    try:
        yield changed
    finally:
        for held, found in kept:
            held.clear()
            held.update(found)
