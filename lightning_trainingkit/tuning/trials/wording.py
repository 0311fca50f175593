"""Names and values in words."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["label", "names_listed", "values_listed"]


def label(params: Mapping[str, Any]) -> str:
    """Hyperparameters with their values, as the name of a run.

    Example:
        >>> label({"lr": 0.00031, "weight_decay": 1e-5, "act": "relu"})
        'lr=0.00031,weight_decay=1e-5,act=relu'
    """
    return ",".join(_in_words(params))


def values_listed(params: Mapping[str, Any]) -> str:
    """Hyperparameters with their values, in a sentence."""
    return ", ".join(f"`{each}`" for each in _in_words(params))


def names_listed(names: Sequence[str], quoted: bool = False) -> str:
    """Names in a sentence.

    Args:
        names: The names, at least one.
        quoted: Whether they are quoted already.

    Example:
        >>> names_listed(["lr", "drop", "width"])
        '`lr`, `drop` and `width`'
    """
    shown = list(names) if quoted else [f"`{name}`" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _in_words(params: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_short(value)}" for name, value in params.items()]


def _short(value: Any) -> str:
    return f"{value:.3g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
