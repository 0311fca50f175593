"""Plan the initialisation of a layer, and draw its weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_trainingkit.callbacks.initialization.report import LayerInit
from lightning_trainingkit.callbacks.initialization.rules import Rule, needs_gain
from lightning_trainingkit.functional.gain import parse_activation
from lightning_trainingkit.functional.init import InitScheme, init_
from lightning_trainingkit.nn.initialization.layer_weight import fill_, weight_fault
from lightning_trainingkit.nn.structure.activation_after import FollowingActivations

__all__ = ["check_layers", "copy_layer", "draw_layer", "plan_row"]


def check_layers(
    rules: Mapping[str, Rule], layers: Mapping[str, nn.Module], after: FollowingActivations, nonlinearity: str | None
) -> None:
    """Raise ValueError if a weight cannot be filled, or if a gain is needed and the layer's activation is unknown."""
    for name in rules:
        if problem := weight_fault(layers[name]):
            raise ValueError(f"`{name}` {problem}")
    lost = [name for name in after.unknown if needs_gain(rules.get(name))]
    if lost and nonlinearity is None:
        reasons = "; ".join(dict.fromkeys(after.unknown[name] for name in lost))
        raise ValueError(
            f"`nonlinearity` must be given if the activation after a layer is unknown, got None for {', '.join(lost)} "
            f"({reasons}). Give the activation, such as nonlinearity='relu', or give these layers a scheme that "
            "needs no gain, such as xavier_normal."
        )


def plan_row(name: str, rule: Rule, after: FollowingActivations, nonlinearity: str | None) -> LayerInit | None:
    """Return the layer's row of the report, or None if the gain is needed and not known yet."""
    activation = parse_activation(nonlinearity) if nonlinearity else after.known.get(name)
    if needs_gain(rule) and activation is None:
        return None
    gain = None
    if isinstance(rule, InitScheme) and activation is not None and rule.needs_gain:
        gain = activation.gain
    elif isinstance(rule, InitScheme) and rule.mode:
        gain = 1.0
    label = str(rule) if isinstance(rule, InitScheme) else getattr(rule, "__name__", type(rule).__name__)
    return LayerInit(name, label, activation.name if activation else None, gain, float("nan"), float("nan"))


def draw_layer(name: str, layer: Any, rule: Rule, gain: float | None, bias: InitScheme | None) -> None:
    """Fill the weight of a layer, and its bias unless ``bias`` is None."""

    def fill(weight: Tensor) -> Any:
        if not isinstance(rule, InitScheme):
            return rule(weight)
        groups, transposed = getattr(layer, "groups", 1), getattr(layer, "transposed", False)
        return init_(weight, rule, gain=gain or 1.0, groups=groups, transposed=transposed)

    try:
        fill_(layer, "weight", fill)
        if bias is not None and layer.bias is not None:
            fill_(layer, "bias", lambda tensor: init_(tensor, bias))
    except ValueError as error:
        raise ValueError(f"`{name}` {error}") from error


def copy_layer(name: str, layer: Any, source: Any, *, biases: bool) -> None:
    """Copy the weight of ``source`` to a layer, and the bias too if ``biases``."""
    try:
        fill_(layer, "weight", lambda tensor: tensor.copy_(source.weight))
        if biases and layer.bias is not None and source.bias is not None:
            fill_(layer, "bias", lambda tensor: tensor.copy_(source.bias))
    except ValueError as error:
        raise ValueError(f"`{name}` {error}") from error
