"""What several rounds of step 5 say together: which configuration is the best, and whether the last round gained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_trainingkit.functional.repeated_values import drawn_to_the_mean, noise_of_repeats
from lightning_trainingkit.tuning.trials.result import Result, configurations

__all__ = ["Candidate", "candidates", "gained", "noise_of"]

_HALF = 0.5  # of the noise: a smaller gain is none
_SMALL = 0.01  # of the way from the best to the median, where the noise is not known


@dataclass(frozen=True)
class Candidate:
    """A configuration and what its trainings say.

    Args:
        params: The hyperparameters.
        values: The value of each training.
        estimate: Its expected value: the mean, drawn towards the median of all configurations.
    """

    params: Mapping[str, Any]
    values: tuple[float, ...]
    estimate: float


def noise_of(results: Sequence[Result]) -> float | None:
    """How far apart trainings of one configuration are. None without a repeat."""
    return noise_of_repeats([values for _, values in configurations(results)])


def candidates(results: Sequence[Result], mode: str) -> list[Candidate]:
    """All configurations, the best first. One lucky training does not win against several good ones.

    Args:
        results: Results of trainings of equal length.
        mode: Better end of the metric.
    """
    groups = configurations(results)
    if not groups:
        return []
    values = [each for _, each in groups]
    estimates = drawn_to_the_mean(values, noise_of_repeats(values) or 0.0, mode)
    found = [
        Candidate(params, tuple(each), estimate) for (params, each), estimate in zip(groups, estimates, strict=True)
    ]
    sign = 1 if mode == "min" else -1
    return sorted(found, key=lambda each: (sign * each.estimate, sign * sum(each.values) / len(each.values)))


def gained(rounds: Sequence[Sequence[Result]], mode: str) -> str:
    """Whether the new configurations of the last round are better than all earlier ones, in words.

    The gain must be above half of the noise. If no configuration was trained twice, it must be above 1 % of the way
    from the best value to the median.

    Args:
        rounds: The results of each round, two rounds or more.
        mode: Better end of the metric.

    Returns:
        An empty text if the round gained. Otherwise why it did not.
    """
    everything = [each for part in rounds for each in part]
    known = [params for params, _ in configurations([each for part in rounds[:-1] for each in part])]
    ranked = candidates(everything, mode)
    old = [each.estimate for each in ranked if each.params in known]
    new = [each.estimate for each in ranked if each.params not in known]
    if not old:
        return ""
    if not new:
        return f"In round {len(rounds)} no new configuration was trained to its end."
    pick, sign = (min, 1) if mode == "min" else (max, -1)
    gain = sign * (pick(old) - pick(new))
    noise = noise_of(everything)
    middle = ranked[len(ranked) // 2].estimate
    least = _HALF * noise if noise is not None else _SMALL * abs(middle - ranked[0].estimate)
    if gain > least:
        return ""
    if gain <= 0:
        return f"No new configuration of round {len(rounds)} was better than the earlier ones."
    limit = "half of the noise" if noise is not None else "a hundredth of the way from the best value to the median"
    return f"Round {len(rounds)} gained {gain:.2g}. A gain counts above {least:.2g}, {limit}."
