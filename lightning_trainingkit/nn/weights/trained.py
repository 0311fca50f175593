"""Which modules hold trained weights, as far as this process has seen."""

from weakref import WeakSet

from torch import nn

__all__ = ["is_trained", "mark_trained"]

# Beside the modules, not in them: nothing of it is saved, copied or pickled, and it goes with the module.
_trained: WeakSet[nn.Module] = WeakSet()


def mark_trained(module: nn.Module) -> None:
    """Note that a module and its parts have been trained, or have loaded weights. Parts that are made later are not.

    Args:
        module: Any module. Nothing in it changes.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> mark_trained(net)
        >>> net[1] = nn.Linear(8, 5)
        >>> [is_trained(layer) for layer in net]
        [True, False]
    """
    _trained.update(module.modules())


def is_trained(module: nn.Module) -> bool:
    """Whether a module itself was marked by `mark_trained`.

    Args:
        module: Any module.

    Example:
        >>> is_trained(nn.Linear(4, 2))
        False
    """
    return module in _trained
