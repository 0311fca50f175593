"""Step 3's rate in the measure of the module's own argument, which may scale several groups of parameters."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_trainingkit.tuning.searches.first_steps import FirstSteps, unknown_values
from lightning_trainingkit.tuning.searches.space_moves import RATES, default_space
from lightning_trainingkit.tuning.trials.domains import Domain, Range
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["beside_space", "own_rate", "rate_name", "start_space"]


def own_rate(source: Source, start: Mapping[str, Domain], first: FirstSteps) -> float | None:
    """Step 3's rate. None if step 3 found none, or if the module has no learning rate of a known name.

    Args:
        source: What builds the module.
        start: The space before step 3.
        first: What steps 1 to 3 found.
    """
    name = rate_name(source, start)
    if name is None or first.factor is None:
        return None
    return float(f"{first.factor * float(_values(source, start)[name]):.4g}")


def beside_space(step: Verdict, rate: float | None, source: Source, given: Space | None) -> Verdict:
    """Step 3's verdict, with a note if its rate lies outside of the space that the user gave."""
    name = rate_name(source, given) if given is not None else None
    domain = given.get(name) if given is not None and name is not None else None
    if rate is None or not isinstance(domain, Range) or domain.low <= rate <= domain.high:
        return step
    note = f"The range of `{name}`, {domain.low:.3g} to {domain.high:.3g}, does not hold this rate."
    return replace(step, notes=(*step.notes, note))


def start_space(source: Source) -> Space:
    """The default space before step 3, around the module's own rate or, where it has none, around 1e-3."""
    try:
        return default_space(source)
    except ValueError:
        return default_space(source, 1e-3)


def rate_name(source: Source, start: Mapping[str, Domain]) -> str | None:
    """The hyperparameter that is the learning rate. None if the module has none of a known name."""
    values = _values(source, start)
    names = {name.rpartition(".")[2]: name for name in reversed((*source.names, *start))}
    return next((names[name] for name in RATES if name in names and _is_number(values.get(names[name]))), None)


def _values(source: Source, start: Mapping[str, Domain]) -> dict[str, Any]:
    """The values with which steps 1 to 3 were run."""
    return {**source.given, **unknown_values(source, start)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
