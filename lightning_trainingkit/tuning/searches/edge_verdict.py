"""Does the best point lie at an edge of the space?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_trainingkit.tuning.searches.effect import without_effect
from lightning_trainingkit.tuning.searches.space_moves import edges
from lightning_trainingkit.tuning.trials.domains import Range
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.wording import names_listed
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["edge_verdict", "edges_of"]


def edges_of(space: Space, done: Sequence[Result], mode: str, noise: float | None = None) -> dict[str, str]:
    """Hyperparameters whose best values lie at an end of the range: ``"low"`` or ``"high"`` by name.

    The best point of a hyperparameter without an effect may lie anywhere. So the other parts of the range must be
    worse, and the best eighth of the trials must lie in the last quarter at the same end on average.

    Args:
        space: The space that was searched.
        done: Completed trials, the best first.
        mode: Better end of the metric.
        noise: Standard deviation of one configuration's value, if it is known.
    """
    params = [each.params for each in done]
    middle = edges(space, [_centre(space, params[: max(1, len(params) // 8)])], share=0.25)
    flat = without_effect(space, done, mode, noise)
    return {name: side for name, side in edges(space, params).items() if middle.get(name) == side and name not in flat}


def edge_verdict(space: Space, done: Sequence[Result], mode: str, noise: float | None) -> Verdict:
    """Whether the best point lies at an edge of the space.

    Args:
        space: The space that was searched.
        done: Completed trials, the best first.
        mode: Better end of the metric.
        noise: Standard deviation of one configuration's value, if it is known.
    """
    params = [each.params for each in done]
    at = edges_of(space, done, mode, noise)
    if not at:
        named = [name for name, domain in space.items() if isinstance(domain, Range)]
        lie = "lies" if len(named) == 1 else "lie"
        inside = (
            f"The best {names_listed(named)} {lie} inside of the space." if named else "The space has choices alone."
        )
        return Verdict(step="edges", verdict="pass", message=inside)
    said, widen = [], []
    for name, side in at.items():
        domain = space[name]
        assert isinstance(domain, Range)
        end = domain.low if side == "low" else domain.high
        said.append(
            f"the best `{name}` {params[0][name]:.3g} lies at the {'lower' if side == 'low' else 'upper'} end {end:.3g}"
        )
        widen.append(f"`{name}` {'below' if side == 'low' else 'above'} {end:.3g}")
    message = "; ".join(said)
    return Verdict(
        step="edges",
        verdict="warn",
        message=f"{message[0].upper()}{message[1:]}.",
        advice=f"Search {names_listed(widen, quoted=True)} too: better values may lie there.",
        value=float(len(at)),
    )


def _centre(space: Space, params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The middle of some points, in the measure of each range."""
    found: dict[str, Any] = dict(params[0])
    for name, domain in space.items():
        if isinstance(domain, Range):
            places = [math.log(each[name]) if domain.log else float(each[name]) for each in params]
            mean = math.fsum(places) / len(places)
            found[name] = math.exp(mean) if domain.log else mean
    return found
