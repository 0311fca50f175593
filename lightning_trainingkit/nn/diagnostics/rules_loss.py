"""Rules about the loss: its sign, its values, the penalties beside it, and whether it falls."""

from collections.abc import Iterator

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.symptoms import Symptoms

__all__ = ["NOT_FALLING", "non_finite", "not_falling", "regularised", "upwards"]

SHRUNK = 0.6  # norm of the weights, relative to the first step
DROPOUT = 0.9  # rate
PENALTY = 0.8  # share of the first loss
NOT_FALLING = 0.93  # share of the loss that is left


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
            f"In the first step, {share:.0%} of the loss does not depend on the images: a penalty outweighs the rest.",
            "Lower the factor of the penalty until it is a small part of the loss.",
        )
        return
    chance = observation.chance_of_part
    at_chance = chance is not None and observation.chance is None and symptoms.losses.end > 0.8 * chance
    if symptoms.shrinkage < SHRUNK and (at_chance or (observation.weight_decay > 0 and symptoms.left > 0.3)):
        yield Finding.of(
            "over_regularised",
            "the weights",
            symptoms.shrinkage,
            f"The weights shrink: to {symptoms.shrinkage:.2f} of their norm in the first step (median of the layers). "
            "Weight decay or a penalty outweighs the loss.",
            "Lower the weight decay or the penalty by a factor of 100 or more: `weight_decay=1e-4`.",
        )


def not_falling(symptoms: Symptoms) -> Iterator[Finding]:
    """A loss that does not fall, where no rule has found a cause."""
    if symptoms.left > NOT_FALLING:
        yield Finding.of(
            "loss_not_falling",
            "the loss",
            symptoms.left,
            f"After {symptoms.losses.count} steps the loss is {symptoms.losses.end:.3g}, which is {symptoms.left:.0%} "
            f"of {symptoms.base:.3g}, {_base(symptoms)}. No cause was found.",
            "Check that inputs and targets belong together: look at a batch. Then let the model learn one batch by "
            "heart: `Trainer(overfit_batches=1)`. Or the input says little about the target.",
        )


def _base(symptoms: Symptoms) -> str:
    chance = symptoms.observation.chance
    return "the loss of outputs that say nothing" if symptoms.base == chance else "the loss of the first step"
