"""Numbers without units, out of what was observed, by which the rules judge."""

import itertools
import math
from collections.abc import Iterable
from functools import cached_property
from statistics import median

from lightning_trainingkit.functional.gradient_statistics import GradientSummary
from lightning_trainingkit.functional.statistics import ActivationSummary
from lightning_trainingkit.nn.diagnostics.observation import Look, Observation

__all__ = ["Symptoms", "promised"]


def promised(look: Look) -> float:
    """Share of the loss that a step promises to take away, to first order: ``-<gradient, update> / loss``.

    It is the rate relative to Polyak's step, which would take the loss to 0 if the loss were linear. Near 1 and above,
    the step jumps over the valley. Far below 1 over the number of steps, the loss cannot fall within them.
    """
    if not look.loss:
        return math.nan
    return _fall(look.gradients.values()) / abs(look.loss)


def _fall(gradients: Iterable[GradientSummary]) -> float:
    return sum(
        each.descent * each.gradient_norm * each.update_norm
        for each in gradients
        if each.steps and each.descent is not None and each.update_norm is not None
    )


class Symptoms:
    """What an observation says, in numbers that do not depend on the size of the model or the unit of the loss.

    Args:
        observation: The observation, with at least one loss and one look.
    """

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self.looks = observation.looks
        self.losses = observation.losses

    @cached_property
    def base(self) -> float:
        """The loss that the training must get below: the first one, or that of chance if it is smaller."""
        first, chance = self.losses.first[0], self.observation.chance
        return min(first, chance) if chance and not math.isnan(first) else first

    @cached_property
    def left(self) -> float:
        """The latest loss, relative to ``base``. NaN for losses that are not positive, infinite for a broken one."""
        if self.first_non_finite is not None:
            return math.inf
        end = self.losses.end
        return end / self.base if self.base > 0 and end >= 0 else math.nan

    @cached_property
    def begins_at(self) -> float:
        """The first loss, relative to chance; 1 where chance is unknown."""
        return self.losses.first[0] / self.observation.chance if self.observation.chance else 1.0

    @cached_property
    def spike(self) -> float:
        """The largest of the first 30 losses, relative to the first one."""
        early = [loss for loss in self.losses.first[:30] if math.isfinite(loss)]
        return max(early) / early[0] if early and early[0] > 0 else 1.0

    @cached_property
    def still_falls(self) -> float:
        """Share of the fall of the loss that came in the second half of the steps. 0.5 for a straight line."""
        known = self.losses.first
        if self.losses.count > len(known):
            return 1.0  # too long ago to know
        width = max(5, len(known) // 10)
        middle = median(known[max(0, len(known) // 2 - width // 2) :][:width])
        fall = self.losses.start - self.losses.end
        return (middle - self.losses.end) / fall if fall > 0 else 1.0

    @cached_property
    def restlessness(self) -> float:
        """Change of the loss from step to step, relative to the larger one of the two; median of the latest third."""
        known = list(self.losses.latest)[-max(2, len(self.losses.latest) // 3) :]
        changes = [abs(b - a) / max(abs(a), abs(b)) for a, b in itertools.pairwise(known) if a or b]
        return median(changes) if changes else 0.0

    @cached_property
    def trained_before(self) -> bool:
        """Whether the loss begins far below chance."""
        return self.begins_at < 0.5

    @cached_property
    def promises(self) -> list[float]:
        """``promised`` of each look."""
        return [promised(look) for look in self.looks]

    @cached_property
    def promised_in_all(self) -> float:
        """Sum of ``promised`` over all steps, from the looks by the trapezoidal rule."""
        steps = [look.step for look in self.looks] + [self.losses.count]
        ends = [*self.promises[1:], self.promises[-1]]
        return sum(
            (steps[i + 1] - steps[i]) * (self.promises[i] + ends[i]) / 2
            for i in range(len(self.looks))
            if not math.isnan(self.promises[i] + ends[i])
        )

    def activations(self, number: int = 0) -> dict[str, ActivationSummary]:
        """Layers that were called, at a look, in their order."""
        return {name: each for name, each in self.looks[number].activations.items() if each.calls}

    def dead_from_the_start(self, layer: str) -> float:
        """Smallest share of dead units of a layer, over the looks of the first steps.

        It is 0 where these looks have seen fewer than 32 images. A batch of two images leaves many units at zero.
        """
        early = [look.activations[layer] for look in self.looks if look.step <= 8 and layer in look.activations]
        if sum(each.images for each in early) < 32:
            return 0.0
        return min(each.dead for each in early)

    def gradients(self, number: int) -> dict[str, GradientSummary]:
        """Weights (no biases and gains) with a gradient, at a look, in their order."""
        look = self.looks[number]
        return {name: each for name, each in look.gradients.items() if each.steps and name in look.spreads}

    @cached_property
    def update_ratios(self) -> list[float]:
        """Median over weights of update to weight, at each look."""
        found = []
        for number in range(len(self.looks)):
            ratios = [each.update_ratio for each in self.gradients(number).values() if each.update_ratio is not None]
            found.append(median(ratios) if ratios else math.nan)
        return found

    @cached_property
    def shrinkage(self) -> float:
        """Median over weights of the norm at the latest look, relative to the first look. 1 where it is unknown."""
        before, after = self.gradients(0), self.gradients(len(self.looks) - 1)
        ratios = [
            after[name].weight_norm / each.weight_norm  # type: ignore[operator]
            for name, each in before.items()
            if name in after and each.weight_norm and after[name].weight_norm is not None
        ]
        return median(ratios) if ratios else 1.0

    @cached_property
    def steps_back(self) -> float:
        """Median over the first looks of the cosine between the update and minus the gradient."""
        found = []
        for look in self.looks[:4]:
            active = [each for each in look.gradients.values() if each.steps and each.update_norm]
            length = math.hypot(*(each.update_norm or 0 for each in active))
            slope = math.hypot(*(each.gradient_norm for each in active))
            if length and slope:
                found.append(_fall(active) / (length * slope))
        return median(found) if found else 0.0

    @cached_property
    def gradient_norms(self) -> list[float]:
        """Norm of the whole gradient at each look."""
        norms = [[each.gradient_norm for each in look.gradients.values() if each.steps] for look in self.looks]
        return [math.hypot(*each) for each in norms]

    @cached_property
    def largest_rate(self) -> float:
        """The largest learning rate at any look."""
        return max((rate for look in self.looks for rate in look.rates), default=0.0)

    def pull(self, number: int) -> dict[str, float]:
        """``|gradient| |weight|`` of each weight at a look: how much the loss would change with its scale.

        In a net of linear and ReLU layers it is equal in all layers.
        """
        return {name: each.gradient_norm * (each.weight_norm or 0) for name, each in self.gradients(number).items()}

    @cached_property
    def first_non_finite(self) -> int | None:
        """Number of the first known step whose loss is not finite."""
        known = self.losses.first if self.losses.count <= len(self.losses.first) else list(self.losses.latest)
        offset = self.losses.count - len(known)
        return next((offset + number for number, loss in enumerate(known) if not math.isfinite(loss)), None)
