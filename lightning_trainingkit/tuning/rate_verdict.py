"""The answer of step 3, in words."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_trainingkit.functional.learning_rate_choice import good_trials, largest_stable
from lightning_trainingkit.functional.range_test import drop_of_sweep
from lightning_trainingkit.functional.rate_trial import RateTrial
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["LearningRate", "rate_verdict"]


@dataclass(frozen=True, kw_only=True)
class LearningRate(Verdict):
    """The answer of step 3: the learning rate, and what it rests on. ``value`` is the rate.

    Args:
        rate: The chosen rate; with several parameter groups, the largest one of all. None if no rate lowered the loss.
        rates: The chosen rate of each parameter group, by the name that LearningRateMonitor gives it.
        curve: Rate and loss of each iteration of the range test.
        trials: The trials, the smallest rate first.
        iterations: Iterations of the range test and of all trials.

    Example:
        >>> found = LearningRate(step="learning_rate", verdict="pass", message="At lr=0.1, ...", rate=0.1)
        >>> found.rate
        0.1
    """

    rate: float | None = None
    rates: Mapping[str, float] | None = None
    curve: tuple[tuple[float, float], ...] = ()
    trials: tuple[RateTrial, ...] = ()
    iterations: int = 0

    def save_picture(self, path: str | os.PathLike[str]) -> None:
        """Draw the range test, and the drop of the loss against the learning rate, with the choice.

        Args:
            path: The file. Its ending chooses the format, such as ``.png``.

        Raises:
            ImportError: If matplotlib is missing, which the extra ``tuning`` installs.
        """
        from lightning_trainingkit.tuning.learning_rate_picture import save_picture

        save_picture(self, path)


def rate_verdict(
    chosen: float | None, trials: Sequence[RateTrial], optimizers: OptimizerRates, *, given: bool, **numbers: Any
) -> LearningRate:
    """Say in words what a search found.

    Args:
        chosen: The chosen rate. None if no rate lowered the loss, or if the loss has the wrong sign.
        trials: All trials.
        optimizers: The rates of the module's optimizers.
        given: Whether the user gave the candidates.
        **numbers: Further fields of the result.
    """
    numbers.update(step="learning_rate", trials=tuple(sorted(trials, key=lambda each: each.rate)))
    if chosen is None:
        advice = " ".join(each.advice for each in numbers["findings"]) or (_LEAVE_OUT if given else _NOTHING_FELL)
        wrong_sign = next((each.message for each in numbers["findings"] if each.kind == "wrong_loss_sign"), "")
        return LearningRate(verdict="fail", message=wrong_sign or _nothing_fell(trials), advice=advice, **numbers)
    rates = optimizers.at(chosen)
    advice = f"Train with {_lr(chosen)}"
    if len(rates) > 1:
        advice = f"Train with {', '.join(f'{name} {rate:.3g}' for name, rate in rates.items())}"
    fell_in_sweep = drop_of_sweep(numbers["curve"], trials[0].start)
    slow = given and max(each.drop for each in trials) < 0.5 * fell_in_sweep
    if slow:
        advice = f"{_LEAVE_OUT[:-1]}, where the loss fell by {fell_in_sweep:.3g}"
    return LearningRate(
        verdict="warn" if slow else "pass",
        message=_fell(chosen, trials),
        advice=f"{advice}.",
        value=chosen,
        rate=chosen,
        rates=rates,
        **numbers,
    )


def _fell(chosen: float, trials: Sequence[RateTrial]) -> str:
    smallest, *_ = good = good_trials(trials)
    best = max(good, key=lambda each: each.drop)
    message = (
        f"In {best.planned} iterations the loss fell from {best.start:.3g} by {best.drop:.3g} ± {best.margin:.2g} at "
        f"{_lr(best.rate)}"
    )
    if smallest is not best:
        message += f", and by {smallest.drop:.3g} ± {smallest.margin:.2g} at {_lr(smallest.rate)}"
    return f"{message}. The choice is {_lr(chosen)}; rates up to {_lr(largest_stable(trials))} were stable."


_LEAVE_OUT = "Leave `candidates` out: they are then chosen by the range test."
_NOTHING_FELL = (
    "Run check_initial_loss and overfit_small_sample first: they name a loss, an initialisation or data that keep the "
    "module from learning."
)


def _nothing_fell(trials: Sequence[RateTrial]) -> str:
    finite = [each for each in trials if each.finite]
    rates = [each.rate for each in trials]
    if not finite:
        return f"The loss was not finite at any rate from {min(rates):g} to {max(rates):g}."
    best = max(finite, key=lambda each: each.drop)
    return (
        f"No rate from {min(rates):g} to {max(rates):g} lowered the loss significantly in 100 iterations: at best "
        f"{_lr(best.rate)}, from {best.start:.3g} by {best.drop:.2g} ± {best.margin:.2g}."
    )


def _lr(rate: float) -> str:
    return f"`lr={rate:.3g}`"
