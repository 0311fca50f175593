"""Search for a learning rate: a range test, trials of candidates, and at most two refinements."""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional.learning_rate_choice import choose_rate, loses, next_refinement
from lightning_trainingkit.functional.range_test import blown_up, candidates_from_sweep, sweep_rates
from lightning_trainingkit.functional.rate_trial import RateTrial
from lightning_trainingkit.tuning.first_batch import FirstBatch
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.rate_probe import RateProbe
from lightning_trainingkit.tuning.rate_verdict import LearningRate, rate_verdict
from lightning_trainingkit.tuning.trial import Data, Trial

__all__ = ["RateSearch", "checked_candidates"]

ITERATIONS = 100  # of a trial, as the lecture has it
LOWEST, HIGHEST = 1e-5, 1.0
MOST = 5  # candidates
REFINEMENTS = 2
FIRST = 10  # iterations of the range test at almost no rate, which measure the loss at the start


class RateSearch:
    """A search for a learning rate.

    Args:
        trial: Trains copies.
        candidates: One to five rates in growing order; None for those that the range test gives.
        prepare: Prepares the copies of module and data, as ``Trial.run`` takes it.

    Raises:
        TypeError: If the candidates are no numbers.
        ValueError: If the candidates are none or more than five, or if one is not positive, or if they do not grow.
    """

    def __init__(
        self,
        trial: Trial,
        candidates: Sequence[float] | None = None,
        prepare: Callable[[L.LightningModule, Data], Data] | None = None,
    ) -> None:
        self._trial, self._candidates, self._prepare = trial, checked_candidates(candidates), prepare
        self._curve: list[tuple[float, float]] = []
        self._trials: list[RateTrial] = []
        self._start, self._start_error = math.nan, math.nan
        self._optimizers: OptimizerRates | None = None
        self._notes: tuple[str, ...] = ()

    def run(self) -> LearningRate:
        """Run the range test, the candidates, and at most two further trials."""
        self._sweep()
        for rate in self._candidates or candidates_from_sweep(self._curve, self._start, self._start_error, MOST):
            self._try(rate, may_lose=True)
        for _ in range(REFINEMENTS):
            refinement = next_refinement(self._trials)
            if refinement is None:
                break
            self._try(refinement, may_lose=False)
        assert self._optimizers is not None
        chosen, first = choose_rate(self._trials), FirstBatch()
        if chosen is None or min(each.start - each.drop for each in self._trials) < 0:
            self._trial.run(first, self._prepare)
            if any(each.kind == "wrong_loss_sign" for each in first.findings):
                chosen = None
        return rate_verdict(
            chosen,
            self._trials,
            self._optimizers,
            curve=tuple(self._curve),
            given=self._candidates is not None,
            findings=first.findings,
            notes=self._notes,
            iterations=FIRST + len(self._curve) + sum(len(each.losses) for each in self._trials),
        )

    def _sweep(self) -> None:
        rates = [LOWEST / 1000] * FIRST + sweep_rates(LOWEST, HIGHEST, ITERATIONS - FIRST)

        def ends(losses: list[float]) -> bool:
            return len(losses) > FIRST and blown_up(losses[FIRST:], _mean(losses[:FIRST]))

        losses, _ = self._train(rates, ends)
        self._curve = list(zip(rates[FIRST:], losses[FIRST:], strict=False))
        self._start = _mean(losses[:FIRST])
        if not math.isfinite(self._start):
            raise ValueError(
                f"`training_step` must return finite losses at the start, got {self._start} at a rate of almost zero. "
                "Look at the input and at the initialisation: check_initial_loss names the reason."
            )
        self._start_error = statistics.stdev(losses[:FIRST]) / math.sqrt(FIRST)

    def _try(self, rate: float, *, may_lose: bool) -> None:
        best = max((each for each in self._trials if each.whole), key=lambda each: each.drop, default=None)

        def made(losses: list[float], finite: bool = True) -> RateTrial:
            return RateTrial(rate, tuple(losses), self._start, finite, ITERATIONS, self._start_error)

        def ends(losses: list[float]) -> bool:
            behind = may_lose and best is not None and len(losses) >= ITERATIONS // 2 and loses(made(losses), best)
            return behind or blown_up(losses, self._start)

        losses, finite = self._train([rate] * ITERATIONS, ends)
        self._trials.append(made(losses, finite))

    def _train(self, rates: Sequence[float], ends: Callable[[list[float]], bool]) -> tuple[list[float], bool]:
        """Return the losses of a training, and whether they were finite."""
        probe = RateProbe(rates, ends)
        try:
            self._trial.run(probe, self._prepare)
        except Exception:  # the module's own code may not bear weights that are not finite
            alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
            if not (probe.broken and alone):
                raise
            probe.losses.append(math.nan)
        if self._optimizers is None:
            self._optimizers, self._notes = probe.optimizers, probe.notes
        return probe.losses, all(map(math.isfinite, probe.losses))


def checked_candidates(candidates: Sequence[float] | None) -> list[float] | None:
    """Return the candidates as floats, the largest first."""
    if candidates is None:
        return None
    rates = [float(each) for each in candidates]
    if not 1 <= len(rates) <= MOST:
        raise ValueError(f"`candidates` must hold 1 to {MOST} rates, got {len(rates)}. Give [1e-4, 1e-3, 1e-2, 1e-1].")
    if not all(math.isfinite(each) and each > 0 for each in rates):
        raise ValueError(f"`candidates` must be positive and finite, got {rates}. Give [1e-4, 1e-3, 1e-2, 1e-1].")
    if any(after <= before for before, after in pairwise(rates)):
        raise ValueError(f"`candidates` must grow, got {rates}. Sort them.")
    return rates[::-1]


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses) if losses else math.nan
