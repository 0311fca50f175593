"""Train with dropped weights in chosen layers."""

from collections.abc import Mapping

from torch import nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.surgery import Change, NoiseSurgery
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.noise_schedule import Schedule
from lightning_trainingkit.nn.layers.drop_connect import CONVOLUTIONS, DroppedWeights, Mask
from lightning_trainingkit.nn.layers.noisy_forward import Rated
from lightning_trainingkit.nn.layers.replace import check_place, find_places, is_kind, named
from lightning_trainingkit.nn.structure.parameter_patterns import match

__all__ = ["DropConnect"]

_READ_BY_PARENT = nn.modules.linear.NonDynamicallyQuantizableLinear  # attention reads the weight of its projection
_PLAIN = ("timm.layers.linear.Linear",)  # its forward differs from that of nn.Linear in TorchScript alone


class DropConnect(NoiseSurgery):
    """Drop weights of linear and convolutional layers in training; evaluation and the state dict are untouched.

    ``y = (M * W) x / (1 - rate) + b``, with a new mask ``M`` of zeros and ones in each forward pass. The scale keeps
    the mean, so that evaluation uses ``W``. Biases stay. ``MonteCarloDropout`` averages the masks at test time.

    The changes are printed before they are made. ``remove()``, which the end of the fit calls too, keeps the trained
    weights. Masks come from torch's generator.

    Args:
        rates: Name patterns of layers to rates in [0, 1), such as ``{"head": 0.5}``. The last match wins.
        mask: ``"batch"`` draws a mask for each forward pass. ``"sample"`` draws one for each example, as in the paper,
            for linear layers alone.
        schedule: ``"constant"``, ``"rise"`` from 0 to the rate, or ``"fall"`` to 0, over the training.
        until: Share of the training at which the schedule ends.
        verbose: Whether to print the changes.

    Raises:
        TypeError: If ``rates`` is no dict of numbers. In ``setup``, if a layer is TorchScript, quantised or wrapped.
        ValueError: If a rate is outside [0, 1). In ``setup``, if a pattern matches no layer, or a layer cannot have
            such masks.

    Example:
        >>> import lightning as L
        >>> noise = DropConnect({"head": 0.5})
        >>> trainer = L.Trainer(callbacks=[noise], logger=False, enable_checkpointing=False)

    References:
        Wan et al., "Regularization of Neural Networks using DropConnect", ICML 2013.
    """

    def __init__(
        self,
        rates: Mapping[str, float],
        *,
        mask: Mask = "batch",
        schedule: Schedule = "constant",
        until: float = 1.0,
        verbose: bool = True,
    ) -> None:
        super().__init__(schedule, until, verbose=verbose)
        if not isinstance(rates, Mapping) or not rates or not all(isinstance(each, str) for each in rates):
            raise TypeError(
                f"`rates` must be a dict of name patterns to rates, got {rates!r}. Write {{'*': 0.2}}, say."
            )
        hint = "It is the share of the weights to drop. To train without DropConnect, leave the callback out."
        self._by_pattern = {
            pattern: _check.number(f"rates[{pattern!r}]", rate, hint, least=0, below=1)
            for pattern, rate in rates.items()
        }
        _check.one_of("mask", mask, ("batch", "sample"), "'batch' is cheap and works for convolutions too.")
        self.rates = rates
        self.mask: Mask = mask
        self._left: list[Change] = []

    def find(self, pl_module: L.LightningModule) -> dict[str, float]:
        """Find the layers that the patterns match."""
        layers = {
            name: layer
            for name, layer in named(pl_module, skip=(Metric,)).items()
            if is_kind(layer, (nn.Linear, *CONVOLUTIONS)) and not isinstance(layer, _READ_BY_PARENT)
        }
        found = find_places("rates", self._by_pattern, pl_module, layers, rule="match a linear or convolutional layer")
        attention = {name: each for name, each in named(pl_module).items() if isinstance(each, nn.MultiheadAttention)}
        self._left = [
            Change(name, "MultiheadAttention", "left as it is: functions use its weights directly")
            for name in attention
            if any(match(pattern, [name, f"{name}.out_proj"]) for pattern in self._by_pattern)
        ]
        for name in found:
            check_place(pl_module, name, by="DropConnect")
            self._check_type(name, layers[name])
        return {name: rate for name, rate in found.items() if rate > 0}

    def announce(self, trainer: L.Trainer, changes: list[Change], *notes: str) -> None:
        """Print the attention that is left as it is, too."""
        super().announce(trainer, [*changes, *self._left], *notes)

    def _check_type(self, name: str, layer: nn.Module) -> None:
        """Raise ValueError if a layer uses its weight in its own way, or cannot have a mask for each example."""
        forwards = {kind.forward for kind in (nn.Linear, *CONVOLUTIONS)}
        full_name = f"{type(layer).__module__}.{type(layer).__qualname__}"
        if type(layer).forward not in forwards and full_name not in _PLAIN:
            raise ValueError(
                f"`{name}` must have the forward of nn.Linear or nn.Conv2d for DropConnect, got "
                f"{type(layer).__name__}, which uses its weight in its own way. Leave the layer out."
            )
        if self.mask == "sample" and not isinstance(layer, nn.Linear):
            size = sum(each.numel() for each in layer.parameters(recurse=False))
            raise ValueError(
                f"`mask` must be 'batch' for convolutions, got 'sample' and `{name}`, where each example would need "
                f"its own copy of {size:,} weights. Match linear layers alone, or take mask='batch'."
            )

    def put(self, name: str, layer: nn.Module, rate: float) -> Rated:
        """Put the masks in front of the layer."""
        return DroppedWeights(layer, rate, self.mask, by="DropConnect")

    def describe(self, name: str, layer: nn.Module, rate: float) -> Change:
        """Say how many weights are dropped."""
        weight = layer.get_parameter("weight") if "weight" in layer._parameters else next(layer.parameters())
        count = f"{rate:.4g} of {weight.numel():,} weights dropped"
        each = " for each row of its input" if self.mask == "sample" else ""
        return Change(name, repr(layer), count + each)
