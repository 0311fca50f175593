"""The space of a search: hyperparameters by name, each with a range or with choices."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.read_yaml import read_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Choices", "Range", "Space"]

_KEYS = ("low", "high", "log", "integer", "choices")
_FORM = 'Write {"low": 1e-4, "high": 1e-1, "log": True} for a range, or ["relu", "gelu"] for choices.'
_IN_YAML = "Write NAME: {low: 1e-4, high: 0.1, log: true} for a range, or NAME: [relu, gelu] for choices."


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
            raise TypeError(f"`choices` must be a list, got {self.values!r}. {_FORM}")
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


class Space(Mapping[str, Domain]):
    """Hyperparameters by name, each with a range or with choices.

    Args:
        domains: For each name a ``Range``, ``Choices``, a dict as ``{"low": 1e-4, "high": 0.1, "log": True}`` or
            ``{"integer": True, ...}``, or a list of choices.

    Raises:
        TypeError: If a range has a wrong type.
        ValueError: If the space, a range or a list of choices is empty, or a range reversed.

    Example:
        >>> space = Space({"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "act": ["relu", "gelu"]})
        >>> space["act"]
        Choices(values=('relu', 'gelu'))
    """

    def __init__(self, domains: Mapping[str, Any]) -> None:
        if not isinstance(domains, Mapping):
            raise TypeError(f"`space` must be a dict, got {type(domains).__name__}. {_FORM}")
        if not domains:
            raise ValueError("`space` must hold a hyperparameter, got an empty one. Name one with its range.")
        self._domains: dict[str, Domain] = {}
        for name, given in domains.items():
            if not isinstance(name, str):
                raise TypeError(f"`space` must name hyperparameters by texts, got {name!r}. Write {str(name)!r}.")
            try:
                self._domains[name] = _domain(given)
            except (TypeError, ValueError) as error:
                raise type(error)(f"`space` must have a valid range for {name!r}: {error}") from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Space":
        """Read a space from a YAML file: a line ``NAME: {low: 1e-4, high: 0.1, log: true}`` or ``NAME: [a, b]`` each.

        Raises:
            ImportError: If PyYAML is not installed.
            ValueError: If the file is no YAML, or holds no valid space.
        """
        found = read_yaml(path)
        if not isinstance(found, Mapping):
            held = "nothing" if found is None else f"a {type(found).__name__}"
            raise ValueError(f"`{path}` must hold hyperparameters by name, got {held}. {_IN_YAML}")
        try:
            return cls(found)
        except (TypeError, ValueError) as error:  # a wrong type in a file is a wrong file
            raise ValueError(str(error).replace("`space`", f"`{path}`").replace(_FORM, _IN_YAML)) from None

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __repr__(self) -> str:
        return f"Space({self.form})"

    @property
    def form(self) -> dict[str, Any]:
        """The space as YAML holds it. ``Space(space.form)`` is the same space."""
        return {name: domain.form for name, domain in self._domains.items()}

    @property
    def version(self) -> str:
        """A short hash of the names and their ranges, in any order."""
        return hashlib.sha1(json.dumps(self.form, sort_keys=True).encode()).hexdigest()[:12]

    def to_distributions(self) -> "dict[str, BaseDistribution]":
        """The space in Optuna's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        return {
            name: CategoricalDistribution(domain.values)
            if isinstance(domain, Choices)
            else IntDistribution(int(domain.low), int(domain.high), log=domain.log)
            if domain.integer
            else FloatDistribution(domain.low, domain.high, log=domain.log)
            for name, domain in self._domains.items()
        }

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ValueError, with the known names, if the module and the data don't have a hyperparameter."""
        for name in self._domains:
            if name not in names:
                known = ", ".join(_check.nearest(name, names)) or "none"
                as_it_is = name.startswith("data.") and not any(each.startswith("data.") for each in names)
                how = " A DataModule's must be saved by `self.save_hyperparameters()`." if as_it_is else ""
                raise ValueError(
                    f"`space` must name hyperparameters of the module or the data, got {name!r}. There are: "
                    f"{known}.{how}"
                )

    def check_integers(self, given: Mapping[str, Any]) -> None:
        """Raise ValueError if a range of whole numbers, for a hyperparameter that is an integer now, has fractions.

        Args:
            given: The present values by name. 0 and 1 may be meant as floats.
        """
        for name, domain in self._domains.items():
            now = given.get(name)
            if not isinstance(domain, Range) or domain.integer or type(now) is not int or now < 2:
                continue
            if float(domain.low).is_integer() and float(domain.high).is_integer():
                raise ValueError(
                    f"`space` must say whether {name!r}, now {now}, is an integer: the range {domain.low:g} to "
                    f"{domain.high:g} has fractions. Write `integer: true`, or give the module a float as its value."
                )

    def holds(self, name: str, value: Any) -> bool:
        """Whether a value lies in the range of a hyperparameter."""
        domain = self._domains[name]
        if isinstance(domain, Choices):
            return any(
                value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in domain.values
            )
        return isinstance(value, int | float) and math.isfinite(value) and domain.low <= value <= domain.high


def _domain(given: Any) -> Domain:
    if isinstance(given, Range | Choices):
        return given
    if isinstance(given, Mapping):
        for key in given:
            _check.one_of("key", key, _KEYS, _FORM)
        if "choices" in given:
            if len(given) > 1:
                raise ValueError(f"`choices` must stand alone, got {dict(given)}. {_FORM}")
            return Choices(given["choices"])
        for key in ("low", "high"):
            if key not in given:
                raise ValueError(f"`{key}` must be given, got {dict(given)}. {_FORM}")
        return Range(**given)
    if isinstance(given, list | tuple):
        return Choices(given)
    raise TypeError(f"a range or a list must be given, got {given!r}. {_FORM}")


def _number(value: Any) -> Any:
    """YAML reads ``1e-4`` as a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
