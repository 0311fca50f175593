"""Train with max pooling over random regions."""

from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.surgery import Change, NoiseSurgery
from lightning_trainingkit.nn.layers.fractional_pool import FractionalRegions, pool_fault
from lightning_trainingkit.nn.layers.noisy_forward import Rated
from lightning_trainingkit.nn.layers.replace import check_place, find_places, is_kind, named
from lightning_trainingkit.nn.structure.function_calls import calls_of_functions
from lightning_trainingkit.nn.structure.parameter_patterns import read_patterns

__all__ = ["FractionalMaxPool"]

_FUNCTIONS = ("max_pool2d", "max_pool2d_with_indices", "_max_pool2d")


class FractionalMaxPool(NoiseSurgery):
    """Let max pooling take the largest values of random regions in training; evaluation is untouched.

    The number and the size of the regions are the plain pooling's, so that all later layers fit. The regions begin at
    ``floor(a (i + u)) - floor(a u)`` for a draw ``u`` for each image and channel, in an image with a border of one more
    pixel. So a region moves by about one pixel.

    The paper has larger outputs (ratios from 1 to 2) and a deeper network. ``nn.FractionalMaxPool2d`` is for such a
    network. ``MonteCarloDropout`` averages the regions at test time. The changes are printed before they are made.
    Draws come from torch's generator.

    Args:
        layers: Name pattern of ``nn.MaxPool2d`` layers, or a list of patterns.
        verbose: Whether to print the changes.

    Raises:
        TypeError: If ``layers`` is no string or list of strings.
        ValueError: In ``setup``, if a pattern matches no max pooling, or if the regions of one cannot move. If the
            forward calls max pooling as a function.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[FractionalMaxPool()], logger=False, enable_checkpointing=False)

    References:
        Graham, "Fractional Max-Pooling", 2014, arXiv:1412.6071.
    """

    def __init__(self, layers: str | list[str] = "*", *, verbose: bool = True) -> None:
        super().__init__(verbose=verbose)
        self.layers = layers
        self._patterns = read_patterns("layers", layers, "Try '*'.")

    def find(self, pl_module: L.LightningModule) -> dict[str, float]:
        """Find the max pooling layers that the patterns match."""
        pools: dict[str, Any] = {
            n: e for n, e in named(pl_module, skip=(Metric,)).items() if is_kind(e, (nn.MaxPool2d,))
        }
        functions = calls_of_functions(pl_module, _FUNCTIONS, skip=(Metric,))
        if functions and (not pools or "*" in self._patterns):
            raise ValueError(
                f"`layers` must match max pooling layers, got {self.layers!r}, and the forward of "
                f"{', '.join(functions[:8])} calls max pooling as a function, which cannot be replaced. Use "
                "nn.MaxPool2d there" + (f", or name the layers: {', '.join(list(pools)[:8])}." if pools else ".")
            )
        patterns = dict.fromkeys(self._patterns, 1.0)
        found = find_places("layers", patterns, pl_module, pools, rule="match an nn.MaxPool2d")
        for name in found:
            check_place(pl_module, name, by="FractionalMaxPool")
            if fault := pool_fault(pools[name]):
                raise ValueError(
                    f"`{name}` must have regions that can move for FractionalMaxPool, got {pools[name]}: {fault}. "
                    "Leave the layer out."
                )
        return found

    def put(self, name: str, layer: nn.Module, rate: float) -> Rated:
        """Put random regions in front of the pooling."""
        assert isinstance(layer, nn.MaxPool2d)
        return FractionalRegions(layer, by="FractionalMaxPool")

    def describe(self, name: str, layer: nn.Module, rate: float) -> Change:
        """Say what the pooling becomes."""
        return Change(name, repr(layer), "random regions of this size, in this number")
