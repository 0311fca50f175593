"""Step 3: find a learning rate that makes the loss go down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional.learning_rate_choice import RateTrial
from lightning_trainingkit.tuning.rate_search import RateSearch, checked_candidates
from lightning_trainingkit.tuning.trial import Data, Trial
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["LearningRate", "find_learning_rate"]


@dataclass(frozen=True, kw_only=True)
class LearningRate(Verdict):
    """The answer of step 3. ``value`` is ``rate``.

    Args:
        rate: The chosen rate: that of the parameter group with the largest one. None if no rate was good.
        rates: The chosen rate of each parameter group, by the name that LearningRateMonitor gives it.
        curve: Rates and losses of the range test.
        trials: The trials, in the order of their rates.
        iterations: Iterations of the whole search.
    """

    rate: float | None = None
    rates: dict[str, float]
    curve: tuple[tuple[float, float], ...]
    trials: tuple[RateTrial, ...]
    iterations: int


def find_learning_rate(
    module: L.LightningModule,
    data: Data,
    *,
    candidates: Sequence[float] | None = None,
    trainer_options: Mapping[str, Any] | None = None,
) -> LearningRate:
    """Find a learning rate by short trials on all of the training data, at most 800 iterations."""
    search = RateSearch(Trial(module, data, trainer_options), checked_candidates(candidates))
    return judge_search(search, search.run())


def judge_search(search: RateSearch, chosen: RateTrial | None) -> LearningRate:
    """Say in words what a search found."""
    assert search.optimizers is not None
    shared = {
        "step": "learning_rate",
        "curve": tuple(zip(search.rates, search.losses, strict=True)),
        "trials": tuple(sorted(search.trials, key=lambda each: each.rate)),
        "iterations": search.iterations,
    }
    if chosen is None:
        return LearningRate(verdict="fail", message="No rate lowered the loss.", rates={}, **shared)
    return LearningRate(
        verdict="pass",
        message=f"At {chosen.rate:g} the loss fell from {chosen.start:.3g} by {chosen.drop:.3g} "
        f"in {chosen.planned} iterations.",
        advice=f"Train with lr={chosen.rate:g}.",
        value=chosen.rate,
        rate=chosen.rate,
        rates=search.optimizers.at(chosen.rate),
        **shared,
    )
