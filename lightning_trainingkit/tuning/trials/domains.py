"""What a hyperparameter may be: a range, or a few choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lightning_trainingkit.functional import _check

__all__ = ["FORM", "Choices", "Domain", "Range", "make_domain"]

_KEYS = ("low", "high", "log", "integer", "choices")
FORM = 'Write {"low": 1e-4, "high": 1e-1, "log": True} for a range, or ["relu", "gelu"] for choices.'
"""How to write a domain, for errors."""


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included.

    Args:
        low: Smallest value.
        high: Largest value, above ``low``.
        log: Whether equal ratios are equally likely. Both ends must then be positive.
        integer: Whether the values are integers.

    Raises:
        TypeError: If an end is no number, or no integer where ``integer`` is True.
        ValueError: If the range is empty or reversed, or if it is logarithmic and holds 0.

    Example:
        >>> Range(1e-4, 1e-1, log=True)
        Range(low=0.0001, high=0.1, log=True, integer=False)
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = _number(getattr(self, name))
            hint = "Give a finite number, such as 1e-3."
            checked = _check.integer(name, value, hint) if self.integer else _check.number(name, value, hint)
            object.__setattr__(self, name, checked)
        _check.flag("log", self.log)
        _check.flag("integer", self.integer)
        if self.low >= self.high:
            said = "empty" if self.low == self.high else "reversed"
            advice = f"Give choices, [{self.low:g}]." if self.low == self.high else "Exchange the ends."
            raise ValueError(f"`high` must be above `low` {self.low:g}, got {self.high:g}: {said}. {advice}")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be above 0 with log=True, got {self.low:g}. Give 0 by choices, or log=False.")

    @property
    def form(self) -> dict[str, Any]:
        """The range as YAML holds it."""
        flags = {name: True for name in ("log", "integer") if getattr(self, name)}
        return {"low": self.low, "high": self.high, **flags}


@dataclass(frozen=True)
class Choices:
    """A few values.

    Args:
        values: The values: texts, numbers, True, False or None, each once.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If there is no value, or one twice.

    Example:
        >>> Choices(["relu", "gelu"])
        Choices(values=('relu', 'gelu'))
    """

    values: Sequence[Any]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise TypeError(f"`choices` must be a list, got {self.values!r}. {FORM}")
        if not self.values:
            raise ValueError("`choices` must hold a value, got an empty list. Leave the hyperparameter out.")
        for value in self.values:
            if not isinstance(value, str | int | float | bool | None):
                raise TypeError(
                    f"`choices` must hold texts, numbers, True, False or None, got {value!r}. Name the value by a text."
                )
            if sum(value == other for other in self.values) > 1:  # Optuna takes 1, 1.0 and True for one value
                raise ValueError(f"`choices` must hold each value once, got {value!r} twice. Leave one out.")
        object.__setattr__(self, "values", tuple(self.values))

    @property
    def form(self) -> list[Any]:
        """The choices as YAML holds them."""
        return list(self.values)


Domain: TypeAlias = Range | Choices


def make_domain(given: Any) -> Domain:
    """Make a range or choices of what a user wrote.

    Raises:
        TypeError: If it has another type.
        ValueError: If it is empty, reversed or incomplete.
    """
    if isinstance(given, Range | Choices):
        return given
    if isinstance(given, Mapping):
        for key in given:
            _check.one_of("key", key, _KEYS, FORM)
        if "choices" in given:
            if len(given) > 1:
                raise ValueError(f"`choices` must stand alone, got {dict(given)}. {FORM}")
            return Choices(given["choices"])
        for key in ("low", "high"):
            if key not in given:
                raise ValueError(f"`{key}` must be given, got {dict(given)}. {FORM}")
        return Range(**given)
    if isinstance(given, list | tuple):
        return Choices(given)
    raise TypeError(f"a range or a list must be given, got {given!r}. {FORM}")


def _number(value: Any) -> Any:
    """YAML reads ``1e-4`` as a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
