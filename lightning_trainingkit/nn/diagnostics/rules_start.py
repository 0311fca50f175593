"""Rules about the state in which a training begins: units, activations and gradients of the first steps."""

import math
from collections.abc import Iterator
from statistics import median

from lightning_trainingkit.functional.statistics import ActivationSummary
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.symptoms import Symptoms

__all__ = ["start_findings"]

EQUAL_UNITS = 1e-2  # spread between units, relative to the largest weight; 0.8 and more in healthy trainings
DEAD = 0.45  # share of a layer's units; up to 0.31 in healthy trainings with batches of 16
SATURATED = 0.5  # share of a layer's outputs, in the first step
SATURATED_LATER = 0.7
FLAT = 0.1  # spread between images, relative to the spread of all outputs of a layer
FADING = 1e-2  # spread between images of a layer, relative to the input
LEAST_IMAGES = 8  # of a window, to compare images
SMALL_PULL = 5e-3  # |gradient| |weight| of the first layers, relative to the largest
LARGE_INPUT, SMALL_INPUT = 10.0, 0.05  # root mean square
LARGE_OUTPUT = 10.0  # std of an activation, relative to the input
LARGE_LOSS = 3.0  # first loss relative to chance

_INITIALISE = (
    'Initialise for the activation that follows: `InitOverride("kaiming_normal")`, or add normalisation layers.'
)
HARMED = 0.12  # share of the loss that is left; below it, a training is well whatever its start


def start_findings(symptoms: Symptoms) -> list[Finding]:
    """Find what was wrong when the training began, most likely cause first."""
    if not symptoms.left > HARMED:
        return []
    found = [*_symmetric(symptoms), *_large(symptoms), *_units(symptoms), *_gradient(symptoms)]
    return list({finding.kind: finding for finding in reversed(found)}.values())[::-1]


def _symmetric(symptoms: Symptoms) -> Iterator[Finding]:
    looks = [look for look in symptoms.looks if 2 <= look.step <= 16]
    if not looks or symptoms.left <= 0.3:
        return
    alike = [name for name, spread in looks[-1].spreads.items() if spread < EQUAL_UNITS]
    alike = [name for name in alike if all(look.spreads[name] < EQUAL_UNITS for look in looks)]
    if alike:
        layer = alike[0].rpartition(".")[0] or alike[0]
        yield Finding.of(
            "symmetric_units",
            layer,
            looks[-1].spreads[alike[0]],
            f"All units of {layer} have the same weights, and still do after {looks[-1].step} steps"
            + (f" ({len(alike)} layers in all)." if len(alike) > 1 else ".")
            + " Equal units get equal gradients, so that they learn the same.",
            'Initialise with random weights: `InitOverride("kaiming_normal")`.',
        )


def _large(symptoms: Symptoms) -> Iterator[Finding]:
    """Activations or outputs that are too large in the first step."""
    size = symptoms.observation.input_size
    stds = {name: each.std for name, each in symptoms.activations().items() if math.isfinite(each.std)}
    if any((each.saturated or 0) > SATURATED for each in symptoms.activations().values()):
        return  # the saturated layer is the cause
    if size is not None and size > LARGE_INPUT:
        if symptoms.left <= 0.3:
            return
        yield Finding.of(
            "exploding_activations",
            "the input",
            size,
            f"The input has a root mean square of {size:.3g}, and all activations grow with it.",
            "Scale the input to mean 0 and std 1: `v2.Normalize(mean, std)`, or pixels by `v2.ToDtype(torch.float32, "
            "scale=True)`. BatchNorm as the first layer does it too.",
        )
        return
    name = max(stds, key=lambda each: stds[each], default="")
    grown = symptoms.begins_at > LARGE_LOSS or (symptoms.observation.chance is None and symptoms.left > 0.5)
    if name and grown and stds[name] > LARGE_OUTPUT * max(size or 1.0, 1.0):
        yield Finding.of(
            "exploding_activations",
            name,
            stds[name],
            f"In the first step, the output of {name} has a std of {stds[name]:.3g}, with an input of size "
            f"{size or 1.0:.3g}. The weights before it are too large.",
            _INITIALISE,
        )
    elif symptoms.begins_at > LARGE_LOSS and (symptoms.observation.output_size or 0) > LARGE_LOSS:
        first, chance = symptoms.losses.first[0], symptoms.observation.chance
        yield Finding.of(
            "exploding_activations",
            "the outputs",
            symptoms.observation.output_size or 0.0,
            f"The loss begins at {first:.3g}, where outputs that say nothing give {chance:.3g}: before the first step, "
            f"the outputs have a root mean square of {symptoms.observation.output_size:.3g}.",
            'Initialise the last layer smaller: `InitOverride({NAME: "normal(0.01)"})` with its name.',
        )


def _units(symptoms: Symptoms) -> Iterator[Finding]:
    """The first layer, from the input on, whose units are saturated, dead or the same for all images."""
    size = symptoms.observation.input_size
    if size is not None and size < SMALL_INPUT and symptoms.left > 0.5:
        yield Finding.of(
            "vanishing_activations",
            "the input",
            size,
            f"The input has a root mean square of {size:.3g}: the biases outweigh it, and all images look alike.",
            "Scale the input to mean 0 and std 1: `v2.Normalize(mean, std)`. Is it divided by 255 twice?",
        )
    layers = symptoms.activations()
    fades = _is_flat(list(layers.values())[-1], size) if layers else False
    for name, each in layers.items():
        if each.saturated is not None:
            if each.saturated > SATURATED:
                yield _saturated(name, each.saturated, "In the first step", size is not None and size > LARGE_INPUT)
                break
            continue
        dead = symptoms.dead_from_the_start(name)
        if dead > DEAD and (dead > 0.9 or each.positive < 0.5 * (1 - dead)):  # living units that fire at times
            yield _dead(name, dead, "from the first step on")
            break
        if fades and _is_flat(each, size) and symptoms.left > 0.3:
            yield Finding.of(
                "vanishing_activations",
                name,
                each.between_images,
                f"In the first step, the output of {name} differs by {each.between_images:.2g} between images, and by "
                f"{each.std:.2g} between units: the image hardly counts.",
                _INITIALISE,
            )
            break
        if dead > DEAD:
            yield _dead(name, dead, "from the first step on")
            break
    later = symptoms.activations(len(symptoms.looks) - 1)
    shares = {name: each.saturated for name, each in later.items() if each.saturated is not None}
    worst = max(shares, key=lambda name: shares[name], default="")
    if worst and shares[worst] > SATURATED_LATER and symptoms.left > 0.6:
        yield _saturated(worst, shares[worst], "Now")


def _is_flat(layer: ActivationSummary, size: float | None) -> bool:
    """Whether an output hardly depends on the image."""
    small = layer.between_images < FADING * (size or 1.0)
    return layer.images >= LEAST_IMAGES and small and layer.between_images < FLAT * layer.std


def _saturated(name: str, share: float, when: str, large_input: bool = False) -> Finding:
    return Finding.of(
        "saturated_units",
        name,
        share,
        f"{when}, {share:.0%} of the outputs of {name} are saturated: their derivative is below 5 % of its largest "
        "value, and hardly any gradient passes.",
        "Scale the input to mean 0 and std 1: `v2.Normalize(mean, std)`."
        if large_input
        else 'Use ReLU with `InitOverride("kaiming_normal")`, or add normalisation before the activation.',
    )


def _dead(name: str, share: float, when: str) -> Finding:
    return Finding.of(
        "dead_units",
        name,
        share,
        f"{share:.0%} of the units of {name} are zero for all images {when}: they get no gradient and do not learn.",
        'Initialise again, with biases of 0: `InitOverride("kaiming_normal", bias="zeros")`. LeakyReLU cannot die.',
    )


def _gradient(symptoms: Symptoms) -> Iterator[Finding]:
    """A gradient that fades on its way to the first layers."""
    if symptoms.left <= 0.5:
        return
    shares: list[float] = []
    names: list[str] = []
    for number, look in enumerate(symptoms.looks):
        pull = symptoms.pull(number)
        if 2 <= look.step <= 16 and len(pull) > 2 and max(pull.values()) > 0:
            first = list(pull)[: max(1, len(pull) // 4)]
            shares.append(median(pull[name] for name in first) / max(pull.values()))
            names = first
    if shares and median(shares) < SMALL_PULL:
        layer = names[0].rpartition(".")[0] or names[0]
        yield Finding.of(
            "vanishing_gradient",
            layer,
            median(shares),
            f"The gradient fades on its way back: that of {layer}, times its weights, is {median(shares):.2g} of the "
            "largest one.",
            'Use ReLU with `InitOverride("kaiming_normal")`, add normalisation layers, or residual connections.',
        )
