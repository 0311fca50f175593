"""Rules about the steps of a training: its rate, its penalties and its loss."""

import math
from collections.abc import Iterator
from statistics import median

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.symptoms import Symptoms

__all__ = ["NOT_FALLING", "non_finite", "not_falling", "regularised", "step_findings", "upwards"]

JUMP = 5.0  # share of the loss that one step promises; up to 4.6 in healthy trainings, 1.7 in most
JUMPS = 0.11  # the same, as the mean of all steps, relative to the loss of chance; up to 0.094 in healthy trainings
TOO_LITTLE = 0.2  # share of the loss that all steps together promise
KEPT = 0.25  # share of the promise that the loss must keep, where the rate is too low
LITTLE = 1.2  # share of the loss that all steps together promise, where the promise is kept
BURST = 1e3  # norm of the gradient, relative to its median over the looks
SMALL_UPDATE, NO_UPDATE = 1e-3, 1e-5  # update relative to the weights; healthy near 1e-3
SHRUNK = 0.6  # norm of the weights, relative to the first step
DROPOUT = 0.9  # rate
PENALTY = 0.8  # share of the first loss
GOOD_PROMISE = 0.3  # the largest share of the loss that a step promises, in most healthy trainings
_HELD_DOWN = "A schedule, clipping, or `eps` of Adam may also hold the updates down."
NOT_FALLING = 0.9  # share of the loss that is left


def upwards(symptoms: Symptoms) -> Iterator[Finding]:
    """Updates along the gradient instead of against it."""
    if symptoms.steps_back < -0.1:
        yield Finding.of(
            "wrong_loss_sign",
            "the optimizer",
            symptoms.steps_back,
            f"The updates go up the gradient (cosine {-symptoms.steps_back:.2f}): the optimizer makes the loss larger.",
            "Take `maximize=True` away from the optimizer, or the minus sign from the loss.",
        )


def non_finite(symptoms: Symptoms) -> Iterator[Finding]:
    """Losses that are not finite. The first layer with such an output is named where a look has seen it."""
    step = symptoms.first_non_finite
    if step is None:
        return
    where, what = "the loss", f"The loss is not finite from step {step} on."
    if step == 0:
        what = "The loss of the first step is not finite."
    for look in symptoms.looks:
        layer = next((name for name, each in look.activations.items() if each.calls and not each.finite), None)
        if layer and look.step >= step:
            where = layer
            what += f" The first layer with NaN or infinity in its output, at step {look.step}, is {layer}."
            break
    yield Finding.of(
        "non_finite",
        where,
        float(step),
        what,
        "Look for NaN in the data (`torch.isfinite(x).all()`), the logarithm, root or quotient of zero, and overflow. "
        "`Trainer(detect_anomaly=True)` names the operation.",
    )


def step_findings(symptoms: Symptoms) -> list[Finding]:
    """Find what is wrong with the steps, most likely cause first."""
    return [*_too_high(symptoms), *_exploding(symptoms), *_too_low(symptoms)]


def regularised(symptoms: Symptoms) -> Iterator[Finding]:
    """Dropout that leaves too few units, a penalty that is most of the loss, and weights that shrink."""
    observation = symptoms.observation
    layer, rate = max(observation.dropout.items(), key=lambda each: each[1], default=("", 0.0))
    if rate >= DROPOUT and symptoms.left > 0.3:
        yield Finding.of(
            "over_regularised",
            layer,
            rate,
            f"Dropout in {layer} leaves {1 - rate:.0%} of the units, and {symptoms.left:.0%} of the loss is left.",
            f"Lower it to 0.5 or less: `nn.Dropout(0.5)` in {layer}.",
        )
        return
    share = observation.penalty_share
    if share is not None and share > PENALTY and symptoms.left > 0.3:
        yield Finding.of(
            "over_regularised",
            "the loss",
            share,
            f"In the first step, {share:.0%} of the loss is a penalty or another term beside the classification.",
            "Lower the factor of the penalty until it is a small part of the loss.",
        )
        return
    chance = observation.chance_of_part
    at_chance = chance is not None and observation.chance is None and symptoms.losses.end > 0.8 * chance
    if symptoms.shrinkage < SHRUNK and (symptoms.left > 0.3 or at_chance):
        yield Finding.of(
            "over_regularised",
            "the weights",
            symptoms.shrinkage,
            f"The weights shrink: to {symptoms.shrinkage:.2f} of their norm in the first step (median of the layers). "
            "Weight decay or a penalty outweighs the loss.",
            "Lower the weight decay or the penalty by a factor of 100 or more: `weight_decay=1e-4`.",
        )


def _too_high(symptoms: Symptoms) -> Iterator[Finding]:
    finite = [each for each in symptoms.promises if math.isfinite(each)]
    largest = max(finite, default=0.0)
    mean = symptoms.promised_in_all / max(1, symptoms.losses.count)
    broken = symptoms.first_non_finite is not None
    rising = symptoms.left > 1.5
    noise = 1 / (1 - min(0.99, max(symptoms.observation.dropout.values(), default=0.0)))  # of the gradient, by dropout
    jumps = largest > JUMP and (symptoms.left > 0.08 or broken)
    if (
        not jumps
        and not (mean * min(symptoms.left, 1.0) > JUMPS * noise and symptoms.left > 0.25)
        and not (rising and largest > 0.5)
    ):
        return
    value = largest if jumps else mean
    yield Finding.of(
        "learning_rate_too_high",
        "the optimizer",
        value,
        f"A step promises to lower the loss by {value:.3g} times its value (to first order): it jumps over the valley.",
        f"Lower the learning rate{_rate(symptoms, 1 / max(10.0, value / GOOD_PROMISE))}. If the momentum is above 0.9, "
        "lower it too.",
    )


def _exploding(symptoms: Symptoms) -> Iterator[Finding]:
    """Gradients that are at times many times as large as mostly."""
    norms = [each for each in symptoms.gradient_norms if math.isfinite(each)]
    usual = median(norms) if norms else 0.0
    if not usual or max(norms) < BURST * usual or not symptoms.left > 0.3:
        return
    step = symptoms.looks[symptoms.gradient_norms.index(max(norms))].step
    yield Finding.of(
        "exploding_gradient",
        "the gradient",
        max(norms) / usual,
        f"At step {step}, the gradient's norm is {max(norms):.3g}, which is {max(norms) / usual:.2g} times its median.",
        "Clip the gradient: `Trainer(gradient_clip_val=1.0)`.",
    )


def _too_low(symptoms: Symptoms) -> Iterator[Finding]:
    """Steps that cannot lower the loss within the planned steps, though nothing else stands in their way."""
    if not symptoms.left > 0.4:
        return
    ratios = [each for each, look in zip(symptoms.update_ratios, symptoms.looks, strict=True) if look.step >= 4]
    ratios = [each for each in ratios if math.isfinite(each)]
    ratio = median(ratios) if ratios else math.nan
    promise = symptoms.promised_in_all / (symptoms.observation.progress or 1.0)
    kept = (1 - symptoms.left) / symptoms.promised_in_all if symptoms.promised_in_all > 0 else 0.0
    little = promise < TOO_LITTLE and ratio < SMALL_UPDATE
    if not little and not ratio < NO_UPDATE and not (promise < LITTLE and kept > KEPT):
        return
    if ratio < NO_UPDATE:
        yield Finding.of(
            "update_too_small",
            "the optimizer",
            ratio,
            f"An update changes the weights by {ratio:.1g} of their norm (median of the layers; healthy is near 1e-3).",
            f"Raise the learning rate{_rate(symptoms, min(1e-3 / max(ratio, 1e-12), 1e6))}. {_HELD_DOWN}",
        )
        return
    yield Finding.of(
        "learning_rate_too_low",
        "the optimizer",
        promise,
        f"All steps together promise to lower the loss by {promise:.2g} times its value (to first order), and it falls "
        "as slowly as that.",
        f"Raise the learning rate{_rate(symptoms, min(max(10.0, 20 / max(promise, 1e-9)), 1e6))}. {_HELD_DOWN}",
    )


def not_falling(symptoms: Symptoms) -> Iterator[Finding]:
    """A loss that does not fall, where no rule has found a cause."""
    if symptoms.left > NOT_FALLING:
        yield Finding.of(
            "loss_not_falling",
            "the loss",
            symptoms.left,
            f"After {symptoms.losses.count} steps, {symptoms.left:.0%} of the loss is left, and no cause was found.",
            "Check that images and labels belong together: look at a batch. Then let the model learn one batch by heart: "
            "`Trainer(overfit_batches=1)`.",
        )


def _rate(symptoms: Symptoms, factor: float) -> str:
    """Words for a changed learning rate, from the largest one that was seen."""
    rate = max((rate for look in symptoms.looks for rate in look.rates), default=0.0)
    return f" by {_round(max(factor, 1 / factor))}" + (f", to `lr={_round(rate * factor)}`" if rate else "")


def _round(value: float) -> str:
    return f"{float(f'{value:.1g}'):g}"
