"""The space of the next search: around step 3's rate, then around the best results."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lightning_trainingkit.tuning.trials.domains import Choices, Domain, Range
from lightning_trainingkit.tuning.trials.space import Space

if TYPE_CHECKING:
    from lightning_trainingkit.tuning.trials.source import Source

__all__ = ["default_space", "edges", "narrow", "near_rate"]

RATES = ("lr", "learning_rate", "base_lr", "max_lr", "peak_lr")
DECAYS = ("weight_decay", "wd")
_DECADE = 10.0


def default_space(source: "Source", rate: float | None = None) -> Space:
    """The learning rate within a decade around step 3's rate, and the weight decay 0, 1e-5 or 1e-4.

    Args:
        source: What builds the module. Its names tell what can be searched.
        rate: Step 3's learning rate; by default the rate that the module has.

    Raises:
        ValueError: If the module has no hyperparameter for a learning rate, or no rate is known.
    """
    names = {name.rpartition(".")[2]: name for name in reversed(source.names)}
    found = next((names[name] for name in RATES if name in names), None)
    if found is None:
        raise ValueError(
            f"`space` must be given where the module has no hyperparameter {', '.join(RATES)}, got none. There are: "
            f"{', '.join(source.names) or 'none'}."
        )
    middle = source.given.get(found) if rate is None else rate
    if isinstance(middle, bool) or not isinstance(middle, int | float) or not middle > 0:
        raise ValueError(f"`rate` must be positive, got {middle!r}. Give the learning rate that step 3 found.")
    domains: dict[str, Domain] = {found: Range(middle / _DECADE, middle * _DECADE, log=True)}
    decay = next((names[name] for name in DECAYS if name in names), None)
    if decay is not None:
        domains[decay] = Choices([0.0, 1e-5, 1e-4])
    return Space(domains)


def near_rate(space: Space, name: str | None, rate: float | None) -> Space:
    """The space with its learning rate within a decade around step 3's rate. A range without this rate stays.

    Args:
        space: The space.
        name: The hyperparameter that is the learning rate.
        rate: Step 3's learning rate. None leaves the space.

    Example:
        >>> near_rate(Space({"lr": {"low": 1e-5, "high": 1.0, "log": True}}), "lr", 0.5)["lr"].low
        0.05
    """
    domain = space.get(name or "")
    if rate is None or not isinstance(domain, Range) or domain.integer or not domain.low < rate < domain.high:
        return space
    low, high = max(domain.low, rate / _DECADE), min(domain.high, rate * _DECADE)
    return Space({**space, str(name): Range(low, high, domain.log)})


def narrow(space: Space, results: Sequence[Mapping[str, Any]], share: float = 0.25) -> Space:
    """The space that holds the best results, with a margin of half a step between neighbours on each side.

    Where the best results have one value, the margin is half a step to the nearest other value, or 1 for an integer.
    Ranges shrink to the values of the best results and never grow. Choices stay: short trials say little about them.
    Augmentation, for instance, pays off in longer trainings alone.

    Args:
        space: The space that was searched.
        results: Parameters of all finished trials, the best first.
        share: Share of the results that count as the best; at least 3 results do.
    """
    best = results[: max(3, math.ceil(share * len(results)))]
    if len(best) < 3:
        return space
    found = {name: _narrowed(domain, [each[name] for each in best]) for name, domain in space.items()}
    for name, domain in space.items():
        if isinstance(domain, Range) and all(each[name] == best[0][name] for each in best):
            found[name] = _around(domain, best[0][name], [each[name] for each in results])
    return Space(found)


def edges(space: Space, results: Sequence[Mapping[str, Any]], share: float = 0.1) -> dict[str, Literal["low", "high"]]:
    """Hyperparameters whose best value lies at an edge of its range, where a wider range may hold a better value.

    Args:
        space: The space that was searched.
        results: Parameters of all finished trials, the best first.
        share: Part of the range, at each end, that counts as its edge.
    """
    found: dict[str, Literal["low", "high"]] = {}
    for name, domain in space.items():
        if isinstance(domain, Range) and results:
            low, high = _scaled(domain, domain.low), _scaled(domain, domain.high)
            place = (_scaled(domain, results[0][name]) - low) / (high - low)
            if place <= share or place >= 1 - share:
                found[name] = "low" if place <= share else "high"
    return found


def _scaled(domain: Range, value: float) -> float:
    return math.log(value) if domain.log else float(value)


def _narrowed(domain: Domain, values: list[Any]) -> Domain:
    if isinstance(domain, Choices):
        return domain
    places = sorted(_scaled(domain, value) for value in values)
    margin = (places[-1] - places[0]) / (len(places) - 1) / 2
    ends = [math.exp(end) if domain.log else end for end in (places[0] - margin, places[-1] + margin)]
    if domain.integer:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    low, high = max(domain.low, ends[0]), min(domain.high, ends[1])
    return domain if low >= high else Range(low, high, domain.log, domain.integer)


def _around(domain: Range, value: float, tried: Sequence[float]) -> Range:
    """A range around one value, half of the way to the nearest values that were tried."""
    if domain.integer:
        return Range(max(domain.low, value - 1), min(domain.high, value + 1), domain.log, integer=True)
    below = _scaled(domain, max((each for each in tried if each < value), default=domain.low))
    place = _scaled(domain, value)
    above = _scaled(domain, min((each for each in tried if each > value), default=domain.high))
    ends = [math.exp(end) if domain.log else end for end in ((below + place) / 2, (place + above) / 2)]
    low, high = min(value, max(domain.low, ends[0])), max(value, min(domain.high, ends[1]))  # exp(log(x)) may miss x
    return Range(low, high, domain.log)
