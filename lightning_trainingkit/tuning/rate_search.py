"""Search for a learning rate: a range test, trials of candidates, and at most two refinements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from lightning_trainingkit.functional.learning_rate_choice import (
    RateTrial,
    blown_up,
    candidates_from_sweep,
    choose_rate,
    loses,
    next_refinement,
    sweep_rates,
)
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.rate_probe import RateProbe
from lightning_trainingkit.tuning.trial import Trial

__all__ = ["RateSearch", "checked_candidates"]

ITERATIONS = 100  # of a trial, as the lecture has it
LOWEST, HIGHEST = 1e-5, 1.0
MOST = 5  # candidates
REFINEMENTS = 2
FIRST = 10  # iterations of the range test that measure the loss at the start


@dataclass
class RateSearch:
    """The range test and the trials of a search, in the order in which they ran.

    Args:
        trial: Trains copies.
        candidates: The rates to try; None for those that the range test gives.
    """

    trial: Trial
    candidates: list[float] | None = None
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    trials: list[RateTrial] = field(default_factory=list)
    optimizers: OptimizerRates | None = None

    @property
    def iterations(self) -> int:
        """Iterations of the range test and of all trials."""
        return len(self.losses) + sum(len(each.losses) for each in self.trials)

    def run(self) -> RateTrial | None:
        """Run the search, and return the chosen trial, or None if no rate lowered the loss."""
        self._sweep()
        for rate in self.candidates or candidates_from_sweep(self.rates, self.losses, MOST):
            self._try(rate, may_lose=True)
        for _ in range(REFINEMENTS):
            rate = next_refinement(self.trials)
            if rate is None:
                break
            self._try(rate, may_lose=False)
        return choose_rate(self.trials)

    def _sweep(self) -> None:
        rates = sweep_rates(LOWEST, HIGHEST, ITERATIONS)

        def ends(losses: list[float]) -> bool:
            return len(losses) > FIRST and blown_up(losses, _mean(losses[:FIRST]))

        self.losses, _ = self._train(rates, ends)
        self.rates = rates[: len(self.losses)]
        self.start = _mean(self.losses[:FIRST])
        if not math.isfinite(self.start):
            raise ValueError(
                f"`training_step` must return finite losses at the start, got {self.start}, at a learning rate of "
                f"{LOWEST:g}. Look at the input and at the initialisation: check_initial_loss names the reason."
            )

    def _try(self, rate: float, *, may_lose: bool) -> None:
        best = max((each for each in self.trials if each.whole), key=lambda each: each.drop, default=None)

        def made(losses: list[float], finite: bool = True) -> RateTrial:
            return RateTrial(rate, tuple(losses), self.start, finite, ITERATIONS)

        def ends(losses: list[float]) -> bool:
            behind = may_lose and best is not None and len(losses) >= ITERATIONS // 2 and loses(made(losses), best)
            return behind or blown_up(losses, self.start)

        losses, finite = self._train([rate] * ITERATIONS, ends)
        self.trials.append(made(losses, finite))

    def _train(self, rates: Sequence[float], ends) -> tuple[list[float], bool]:  # type: ignore[no-untyped-def]
        probe = RateProbe(rates, ends)
        try:
            self.trial.run(probe)
        except Exception:  # the module's own code may not bear weights that are not finite
            alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
            if not (probe.broken and alone):
                raise
            probe.losses.append(math.nan)
        self.optimizers = self.optimizers or probe.optimizers
        return probe.losses, all(map(math.isfinite, probe.losses))


def checked_candidates(candidates: Sequence[float] | None) -> list[float] | None:
    """Return the candidates as floats, the largest first.

    Raises:
        TypeError: If they are no sequence of numbers.
        ValueError: If there are none or more than five, or if one is not positive, or if they do not grow.
    """
    if candidates is None:
        return None
    rates = [float(each) for each in candidates]
    if not 1 <= len(rates) <= MOST:
        raise ValueError(f"`candidates` must hold 1 to {MOST} rates, got {len(rates)}. Give [1e-4, 1e-3, 1e-2, 1e-1].")
    if not all(math.isfinite(each) and each > 0 for each in rates):
        raise ValueError(f"`candidates` must be positive and finite, got {rates}. Give [1e-4, 1e-3, 1e-2, 1e-1].")
    if any(after <= before for before, after in zip(rates, rates[1:], strict=False)):
        raise ValueError(f"`candidates` must grow, got {rates}. Sort them.")
    return rates[::-1]


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses) if losses else math.nan
