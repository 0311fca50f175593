"""Measure what reaches the first layer with weights."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["FirstInput"]

_LAYERS = (nn.Linear, _ConvNd, nn.RNNBase)


class FirstInput:
    """Measure, inside the block, the input of the linear, convolutional or recurrent layer that is called first.

    A module may scale its input, or begin with a normalisation layer, so that the batch says little.

    Args:
        module: The module, whose layers have hooks inside the block.

    Attributes:
        size: Root mean square of that input, None if no such layer was called with real numbers.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))
        >>> with FirstInput(net) as first:
        ...     _ = net(torch.tensor([[0.0, 100.0], [200.0, 300.0]]))
        >>> round(first.size, 3)
        1.0
    """

    def __init__(self, module: nn.Module) -> None:
        self.size: float | None = None
        self._layers = [each for each in module.modules() if isinstance(each, _LAYERS)]
        self._handles: list[Any] = []

    def __enter__(self) -> "FirstInput":
        self._handles = [each.register_forward_pre_hook(self._measure, with_kwargs=True) for each in self._layers]
        return self

    def __exit__(self, *args: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _measure(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        x = getattr(x, "data", x)  # of a packed sequence
        if self.size is None and isinstance(x, Tensor) and x.is_floating_point() and x.numel():
            self.size = float(x.detach().float().square().mean().sqrt())
