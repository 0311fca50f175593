"""Rules about the size of the steps: too large, too small, and what holds them down."""

import math
from collections.abc import Iterator
from statistics import median

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.symptoms import Symptoms

__all__ = ["rate_findings"]

JUMP = 5.0  # share of the loss that one step promises; up to 5.3 in healthy trainings, 1.7 in most
HIGH_MOMENTUM = 0.95
SPIKE = 2.0  # largest early loss, relative to the first
JUMPS = 0.1  # the same, as the mean of all steps, times the share that is left
RESTLESS = 0.3  # change of the loss from step to step; 0.18 in a healthy training with JUMPS
BURST = 1e3  # norm of the gradient, relative to its median over the looks
TOO_LITTLE = 0.2  # share of the loss that all steps together promise
KEPT = 0.35  # share of the promise that the loss must keep, where the rate is too low
STILL_FALLS = 0.2  # share of the fall in the second half of the steps; less near a floor that is not 0
LITTLE = 1.2  # share of the loss that all steps together promise, where the promise is kept
SMALL_UPDATE, NO_UPDATE = 1e-3, 1e-5  # update relative to the weights; healthy near 1e-3

# What the advice aims at: values of most healthy trainings.
GOOD_PROMISE, GOOD_FIRST_UPDATE = 0.3, 1e-2
GOOD_PROMISE_IN_ALL, GOOD_UPDATE, LARGEST_GOOD_UPDATE = 20.0, 5e-3, 2e-2


def rate_findings(symptoms: Symptoms) -> list[Finding]:
    """Find what is wrong with the size of the steps, most likely cause first."""
    return [*_too_high(symptoms), *_exploding(symptoms), *_too_low(symptoms)]


def _too_high(symptoms: Symptoms) -> Iterator[Finding]:
    finite = [each for each in symptoms.promises if math.isfinite(each)]
    largest = max(finite, default=0.0)
    mean = symptoms.promised_in_all / max(1, symptoms.losses.count)
    left, broken = symptoms.left, symptoms.first_non_finite is not None
    jumps = largest > JUMP and (broken or left > 0.5 or (left > 0.08 and symptoms.spike > SPIKE))
    restless = mean * min(left, 1.0) > JUMPS and left > 0.25
    restless &= symptoms.restlessness > RESTLESS or (symptoms.observation.momentum or 0.0) > HIGH_MOMENTUM
    rising = left > 1.5 and largest > 0.5
    if not jumps and not restless and not rising:
        return
    value = largest if jumps else mean
    yield Finding.of(
        "learning_rate_too_high",
        "the optimizer",
        value,
        f"A step promises to lower the loss by {value:.3g} times its value (to first order): it jumps over the valley.",
        _lower(symptoms, finite[0] if finite else 0.0),
    )


def _lower(symptoms: Symptoms, first_promise: float) -> str:
    momentum = symptoms.observation.momentum
    if momentum is not None and momentum > HIGH_MOMENTUM:
        return f"Lower the momentum from {momentum:g}: `momentum=0.9`."
    first_update = symptoms.update_ratios[0]
    factors = [10.0, first_promise / GOOD_PROMISE, first_update / GOOD_FIRST_UPDATE if first_update > 0.1 else 0.0]
    factor = max(each for each in factors if math.isfinite(each))
    return f"Lower the learning rate {_round(factor)} times, to `lr={_round(symptoms.largest_rate / factor)}`."


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
    limit = LITTLE if symptoms.observation.final else LITTLE / 2
    slow = promise < limit and kept > KEPT and symptoms.still_falls > STILL_FALLS
    if not little and not ratio < NO_UPDATE and not slow:
        return
    if ratio < NO_UPDATE:
        yield Finding.of(
            "update_too_small",
            "the optimizer",
            ratio,
            f"An update changes the weights by {ratio:.1g} of their norm (median of the layers; healthy is near 1e-3).",
            _held_down(symptoms) or _raise(symptoms, GOOD_UPDATE / max(ratio, 1e-12)),
        )
        return
    factor = min(GOOD_PROMISE_IN_ALL / max(promise, 1e-9), LARGEST_GOOD_UPDATE / max(ratio, 1e-12))
    yield Finding.of(
        "learning_rate_too_low",
        "the optimizer",
        promise,
        f"All steps together promise to lower the loss by {promise:.2g} times its value (to first order), and it falls "
        "as slowly as that.",
        _held_down(symptoms) or _raise(symptoms, max(10.0, factor)),
    )


def _held_down(symptoms: Symptoms) -> str:
    """What beside the learning rate makes the updates small, as advice. Empty if nothing is known."""
    observation, rates = symptoms.observation, [max(look.rates) for look in symptoms.looks if look.rates]
    first, last = (rates[0], rates[-1]) if rates else (0.0, 0.0)
    if last < first / 30:
        return (
            f"The schedule lowers the learning rate from {first:.2g} to {last:.2g} in {symptoms.looks[-1].step} steps. "
            "Let it decay more slowly: give its length in the unit of its `interval`, steps or epochs."
        )
    if last > 10 * max(first, 1e-30) and last > 1.5 * rates[-2]:
        return (
            f"The schedule still warms up: the learning rate is {last:.2g} after {symptoms.looks[-1].step} steps. "
            "Make the warm-up of the schedule shorter, at most a tenth of the training."
        )
    if observation.eps is not None and observation.eps > 1e-3:
        return f"The optimizer's eps of {observation.eps:g} outweighs the gradient: `eps=1e-8`."
    usual = median(symptoms.gradient_norms)
    if observation.clip and usual > 10 * observation.clip:
        return (
            f"Clipping to {observation.clip:g} shortens a gradient whose norm is {usual:.2g} (median). Raise it: "
            "`Trainer(gradient_clip_val=1.0)`."
        )
    if observation.loss_factor is not None and observation.loss_factor < 0.1:
        return (
            f"The training step returns the loss times {observation.loss_factor:.2g}, which makes the gradients small. "
            "Return the loss without the factor."
        )
    return ""


def _raise(symptoms: Symptoms, factor: float) -> str:
    rate = f"`lr={_round(symptoms.largest_rate * factor)}`"
    return f"Raise the learning rate {_round(factor)} times, to {rate}, or train longer."


def _round(value: float) -> str:
    return f"{float(f'{value:.1g}'):g}"
