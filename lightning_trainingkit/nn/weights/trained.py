"""Record which modules hold trained weights, as far as this process knows."""

from weakref import WeakSet

from torch import nn

__all__ = ["is_trained", "mark_trained"]

# Outside of the modules, so that the mark is not saved, copied or pickled, and is freed with the module.
_trained: WeakSet[nn.Module] = WeakSet()


def mark_trained(module: nn.Module) -> None:
    """Mark a module and its parts as trained or loaded. Parts that are made later are not marked.

    Args:
        module: Any module. It does not change.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> mark_trained(net)
        >>> net[1] = nn.Linear(8, 5)
        >>> [is_trained(layer) for layer in net]
        [True, False]
    """
    _trained.update(module.modules())


def is_trained(module: nn.Module) -> bool:
    """Whether `mark_trained` has marked exactly this module.

    Args:
        module: Any module.

    Example:
        >>> is_trained(nn.Linear(4, 2))
        False
    """
    return module in _trained
