"""Names of modules and parameters, without the parts that ``torch.compile`` adds."""

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["join", "plain_name", "plain_names"]

_COMPILED = "_orig_mod"  # the child in which ``torch.compile(module)`` keeps the module

T = TypeVar("T")


def plain_name(name: str) -> str:
    """Strip the parts that ``torch.compile`` adds to a name.

    Example:
        >>> plain_name("net._orig_mod.0.weight"), plain_name("_orig_mod")
        ('net.0.weight', '')
    """
    return ".".join(part for part in name.split(".") if part != _COMPILED) if _COMPILED in name else name


def plain_names(values: Mapping[str, T]) -> dict[str, T]:
    """Strip the parts that ``torch.compile`` adds from the keys of a state dict or of another mapping by name."""
    return {plain_name(name): value for name, value in values.items()}


def join(prefix: str, name: str) -> str:
    """Join two parts of a name, either of which may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name
