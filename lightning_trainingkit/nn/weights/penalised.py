"""The parameters of a model on which a penalty acts."""

from collections.abc import Sequence

from torch import nn

from lightning_trainingkit.nn.structure.parameter_patterns import match_parameters, parameter_names
from lightning_trainingkit.nn.weights.decay import spared_parameters

__all__ = ["penalised_parameters"]


def penalised_parameters(
    module: nn.Module, patterns: Sequence[str], *, norms_and_biases: bool = False
) -> dict[str, nn.Parameter]:
    """Find the parameters for a penalty by name. A shared parameter appears once, under its first name.

    Args:
        module: The model, which is not changed.
        patterns: Patterns of ``fnmatch`` over the names of modules and parameters.
        norms_and_biases: Whether to include the parameters that `decay_groups` spares: biases, those of normalisation
            layers, and those with fewer than two dimensions.

    Raises:
        ValueError: If a pattern matches nothing, or matches spared parameters alone.
    """
    spared = set() if norms_and_biases else spared_parameters(module)
    named = parameter_names(module)
    matched: set[str] = set()
    for pattern in patterns:
        names = match_parameters("layers", "name layers or parameters", pattern, named)
        if all(named[name] in spared for name in names):
            raise ValueError(
                f"`layers` must name a weight, got {pattern!r}, which matches norms and biases alone: "
                f"{', '.join(names[:8])}. Name other layers, or set norms_and_biases=True."
            )
        matched.update(names)
    chosen: dict[nn.Parameter, str] = {}
    for name, parameter in named.items():
        if name in matched and parameter not in spared:
            chosen.setdefault(parameter, name)
    return {name: parameter for parameter, name in chosen.items()}
