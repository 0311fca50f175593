"""Set the dropout rates of a finished model, and insert dropout."""

from collections.abc import Mapping

from torch import nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.surgery import Change, NoiseSurgery
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.noise_schedule import Schedule
from lightning_trainingkit.nn.layers.noisy_forward import Rated, RatedAttribute
from lightning_trainingkit.nn.layers.output_dropout import OutputDropout
from lightning_trainingkit.nn.layers.replace import check_place, find_places, named
from lightning_trainingkit.nn.structure.head import find_heads
from lightning_trainingkit.nn.structure.parameter_patterns import match
from lightning_trainingkit.nn.structure.randomness import dropout_rates
from lightning_trainingkit.nn.structure.tracing import LAYERS

__all__ = ["DropoutOverride"]


class DropoutOverride(NoiseSurgery):
    """Set the dropout rates of a finished model by name pattern, and insert dropout where there is none.

    - **A pattern that matches dropout** sets its rate: torch's dropout layers, the rates of attention and recurrent
      networks, and the rates that modules of torchvision and timm hold as attributes.
    - **A pattern that matches none** inserts inverted dropout after each linear and convolutional layer that it
      matches, the last layer excepted. An exact name inserts it after that module, whatever its kind.

    Keys of the state dict never change. Each stage ends with the model's own rates. Stochastic depth stays.

    Args:
        rates: A rate for all existing dropout, or a dict of name patterns to rates in [0, 1). The last match wins.
        schedule: ``constant``, ``rise`` from 0 to the rates (curriculum dropout), or ``fall`` to 0 (early dropout).
        until: Share of the training at which a rise or a fall ends. With ``constant`` there is no dropout after it.
        verbose: Whether to print the changes.

    Raises:
        TypeError: If a rate is no number. In ``setup``, if a layer is TorchScript, quantised or wrapped.
        ValueError: If a rate is out of range. In ``setup``, if a pattern matches nothing, another surgery has changed
            a layer, or a compiled module meets a schedule. After the first batch, if a layer was not called.

    Example:
        >>> import lightning as L
        >>> dropout = DropoutOverride({"net.classifier.*": 0.5, "net.features": 0.1}, schedule="rise", until=0.5)
        >>> trainer = L.Trainer(callbacks=[dropout], logger=False, enable_checkpointing=False)

    References:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
        Morerio et al., "Curriculum Dropout", ICCV 2017, arXiv:1703.06229.
        Liu et al., "Dropout Reduces Underfitting", ICML 2023, arXiv:2303.01500.
    """

    def __init__(
        self,
        rates: float | dict[str, float],
        *,
        schedule: Schedule = "constant",
        until: float = 1.0,
        verbose: bool = True,
    ) -> None:
        super().__init__(schedule, until, verbose=verbose)
        self.rates = rates
        self._by_pattern = _read_rates(rates)

    def find(self, pl_module: L.LightningModule) -> dict[str, float]:
        """Find the layers with dropout, and the layers that get it."""
        layers = named(pl_module, (Metric,))
        existing = [name for name, layer in layers.items() if dropout_rates(layer)]
        if not isinstance(self.rates, Mapping) and not existing:
            raise ValueError(
                f"`rates` must name layers where a model has no dropout, got {self.rates}. "
                "Write {'net.layer4.*': 0.1}, say, which inserts dropout there."
            )
        wanted: dict[str, float] = {}
        for pattern, rate in self._by_pattern.items():
            names = match(pattern, existing) or self._without(pl_module, pattern, layers, existing)
            wanted |= dict.fromkeys(names, rate)
        for name in wanted:
            check_place(pl_module, name, by=type(self).__name__)
        return wanted

    def put(self, name: str, layer: nn.Module, rate: float) -> Rated:
        """Set the rate of a layer, or put dropout on its output."""
        attributes = dropout_rates(layer)
        if not attributes:
            return OutputDropout(layer, rate, type(self).__name__)
        noise = RatedAttribute(layer, *attributes)
        noise.rate = rate
        return noise

    def describe(self, name: str, layer: nn.Module, rate: float) -> Change:
        """Describe the old and the new rate."""
        held = dropout_rates(layer)
        if not held:
            return Change(name, f"{type(layer).__name__} without dropout", f"dropout of {rate:g} on its output")
        before = ", ".join(f"{each}={getattr(layer, each):g}" for each in held)
        return Change(name, f"{type(layer).__name__}({before})", ", ".join(f"{each}={rate:g}" for each in held))

    def _without(
        self, pl_module: L.LightningModule, pattern: str, layers: Mapping[str, nn.Module], existing: list[str]
    ) -> list[str]:
        """Find the layers for new dropout."""
        last = find_heads(pl_module, skip=(Metric,)) if any("*" in each for each in self._by_pattern) else []
        inside = tuple(f"{name}." for name, each in layers.items() if isinstance(each, nn.MultiheadAttention))
        plain = [name for name, each in layers.items() if isinstance(each, LAYERS) and not name.startswith(inside)]
        if pattern in layers and pattern:
            if pattern.startswith(inside):
                raise ValueError(
                    f"`rates` must name layers that are called, got {pattern!r}, whose weight the attention around it "
                    "uses directly. Name the attention."
                )
            return [pattern]
        known = dict.fromkeys([*existing, *(name for name in plain if name not in last)])
        rule, hint = "match a dropout layer, or a layer for new dropout", "Or give the exact name of a module."
        return list(find_places("rates", {pattern: 0.0}, pl_module, known, rule=rule, hint=hint))


def _read_rates(rates: float | Mapping[str, float]) -> dict[str, float]:
    given = rates if isinstance(rates, Mapping) else {"*": rates}
    if not given or not all(isinstance(pattern, str) for pattern in given):
        raise TypeError(f"`rates` must be a rate or a dict of name patterns to rates, got {rates!r}. Write 0.5, say.")
    hint = "0 switches dropout off, 0.5 is usual for large linear layers."
    by_pattern = {}
    for pattern, rate in given.items():
        name = f"rates[{pattern!r}]" if isinstance(rates, Mapping) else "rates"
        by_pattern[pattern] = _check.number(name, rate, hint, least=0, below=1)
    return by_pattern
