"""Read the arguments of `InitOverride`: a scheme or a function for each name pattern, and a scheme for the biases."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lightning_trainingkit.functional.init import InitScheme, parse_scheme

__all__ = ["Rule", "needs_gain", "read_bias", "read_rules"]

Rule = InitScheme | Callable[[Tensor], Any]


def read_rules(scheme: Any) -> dict[str, Rule]:
    """Parse a scheme for all layers, or a mapping of name patterns to schemes and functions."""
    if isinstance(scheme, str):
        return {"*": parse_scheme(scheme)}
    if not isinstance(scheme, Mapping) or not all(isinstance(pattern, str) for pattern in scheme):
        raise TypeError(
            f"`scheme` must be a string or a dict of name patterns, got {scheme!r}. "
            "A function for all layers is {'*': function}."
        )
    if not scheme:
        raise ValueError("`scheme` must name at least one pattern, got {}. Leave the callback out to change nothing.")
    for pattern, rule in scheme.items():
        if not isinstance(rule, str) and not callable(rule):
            raise TypeError(f"`scheme[{pattern!r}]` must be a string or a function, got {rule!r}. Write 'zeros', say.")
    return {pattern: parse_scheme(rule) if isinstance(rule, str) else rule for pattern, rule in scheme.items()}


def read_bias(bias: str) -> InitScheme:
    """Parse the scheme of the biases."""
    name = bias.partition("(")[0]
    if name not in ("zeros", "constant", "normal"):
        raise ValueError(f"`bias` must be zeros, constant(value), normal(std) or None, got {bias!r}. Choose one.")
    return parse_scheme(bias)


def needs_gain(rule: Rule | None) -> bool:
    """Whether a rule needs the gain of the activation after the layer."""
    return isinstance(rule, InitScheme) and rule.needs_gain
