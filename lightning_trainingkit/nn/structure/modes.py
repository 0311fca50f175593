"""Put a module in eval mode inside a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Put a module and its submodules in eval mode inside the block, and restore each mode at its end.

    Args:
        module: The module, in any mode.

    Yields:
        The module and all its submodules.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluating(net):
        ...     print([layer.training for layer in net])
        [False, False]
        >>> [layer.training for layer in net]
        [True, False]
    """
    found: list[nn.Module] = [module]
    training: list[nn.Module] = []
    for each in found:  # the list grows in the loop; faster than `modules()`, and it runs for each batch
        own = vars(each)
        if own.get("training", True) and each.training:
            training.append(each)
        if parts := own.get("_modules", each._modules):
            found += [part for part in parts.values() if part is not None]
    for each in training:
        each.training = False
    try:
        yield found
    finally:
        for each in training:
            each.training = True
