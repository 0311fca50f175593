"""The space of a search: hyperparameters by name, each with a range or with choices."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.domains import FORM, Choices, Domain, Range, make_domain
from lightning_trainingkit.tuning.trials.read_yaml import read_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Space"]

_IN_YAML = "Write NAME: {low: 1e-4, high: 0.1, log: true} for a range, or NAME: [relu, gelu] for choices."


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
            raise TypeError(f"`space` must be a dict, got {type(domains).__name__}. {FORM}")
        if not domains:
            raise ValueError("`space` must hold a hyperparameter, got an empty one. Name one with its range.")
        self._domains: dict[str, Domain] = {}
        for name, given in domains.items():
            if not isinstance(name, str):
                raise TypeError(f"`space` must name hyperparameters by texts, got {name!r}. Write {str(name)!r}.")
            try:
                self._domains[name] = make_domain(given)
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
            raise ValueError(str(error).replace("`space`", f"`{path}`").replace(FORM, _IN_YAML)) from None

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
