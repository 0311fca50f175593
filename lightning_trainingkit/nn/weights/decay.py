"""The parameters on which weight decay and penalties act."""

from typing import Any

from torch import nn

__all__ = ["decay_groups", "spared_parameters"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def decay_groups(module: nn.Module, weight_decay: float, *, include_frozen: bool = False) -> list[dict[str, Any]]:
    """Sort parameters into one group with weight decay and one without, ready for any ``torch.optim`` class.

    Normalisation layers, biases and all parameters with fewer than two dimensions have no decay: shrinking these does
    not make the function simpler. Each parameter appears once, tied weights too.

    Args:
        module: The model whose parameters are sorted; it is not changed.
        weight_decay: Decay of the first group, not negative. The second group has 0.
        include_frozen: Whether to include parameters with ``requires_grad=False``. If the optimizer holds them from the
            start, they can be unfrozen later without new groups, which break schedules and resuming.

    Returns:
        At most two dictionaries with ``params`` and ``weight_decay``; a group without parameters is left out.

    Raises:
        ValueError: If ``weight_decay`` is negative.

    Example:
        >>> from torch import nn
        >>> groups = decay_groups(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), 0.1)
        >>> [(group["weight_decay"], len(group["params"])) for group in groups]
        [(0.1, 1), (0.0, 3)]

    References:
        He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019,
        arXiv:1812.01187.
    """
    if weight_decay < 0:
        raise ValueError(f"`weight_decay` must not be negative, got {weight_decay}. Use 0 for no decay.")
    spared = spared_parameters(module)
    wanted = [parameter for parameter in module.parameters() if include_frozen or parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in wanted if parameter not in spared], "weight_decay": weight_decay},
        {"params": [parameter for parameter in wanted if parameter in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def spared_parameters(module: nn.Module) -> set[nn.Parameter]:
    """Parameters without weight decay: of normalisation layers, biases, and those with fewer than two dimensions.

    Args:
        module: The model.
    """
    return {
        parameter
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if parameter.ndim < 2 or "bias" in name or isinstance(owner, _NORMS)
    }
