"""The best value in each part of one hyperparameter's range: the tuning playbook's isolation plots as numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lightning_trainingkit.tuning.trials.domains import Choices, Domain, Range
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.space import Space

__all__ = ["Bin", "isolate"]


@dataclass(frozen=True)
class Bin:
    """A part of a hyperparameter's range.

    Args:
        low: Smallest value, or the choice.
        high: Largest value, or the choice.
        count: Number of finished trials there.
        best: Their best value; None without a trial.
    """

    low: Any
    high: Any
    count: int
    best: float | None

    @property
    def title(self) -> str:
        """The part in words."""
        if self.low == self.high:
            return str(self.low)
        return f"{self.low:.3g} to {self.high:.3g}"


def isolate(space: Space, results: Sequence[Result], mode: str, bins: int = 4) -> dict[str, list[Bin]]:
    """Split each hyperparameter's range, and find the best value in each part, whatever the other hyperparameters are.

    Args:
        space: The space that was searched.
        results: Results of completed trials.
        mode: ``"min"`` or ``"max"``.
        bins: Number of parts of a range. Choices are parts by themselves.
    """
    pick = min if mode == "min" else max
    found: dict[str, list[Bin]] = {}
    for name, domain in space.items():
        parts: list[Bin] = []
        for number, (low, high) in enumerate(_parts(domain, bins)):
            last = number == bins - 1
            values = [
                float(each.value)
                for each in results
                if each.value is not None and _is_in(each.params.get(name), low, high, last)
            ]
            parts.append(Bin(low, high, len(values), pick(values) if values else None))
        found[name] = parts
    return found


def _parts(domain: Domain, bins: int) -> list[tuple[Any, Any]]:
    if isinstance(domain, Choices):
        return [(value, value) for value in domain.values]
    ends = [_at(domain, place / bins) for place in range(bins + 1)]
    return list(pairwise(ends))


def _at(domain: Range, share: float) -> float:
    if share in (0, 1):
        return domain.low if share == 0 else domain.high
    if domain.log:
        return math.exp(math.log(domain.low) + share * math.log(domain.high / domain.low))
    return domain.low + share * (domain.high - domain.low)


def _is_in(value: Any, low: Any, high: Any, last: bool) -> bool:
    if value is None and low is not None:
        return False
    if low is high or low == high:
        return bool(value == low)
    return bool(low <= value < high or (last and value == high))
