"""Findings about normalisation layers that do not do what they are for."""

import math
from collections.abc import Collection, Mapping

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.layer_calls import SMALL_MOMENTUM, USUAL_EPS, CallFact
from lightning_trainingkit.nn.diagnostics.norm_state import NormFact
from lightning_trainingkit.nn.diagnostics.parameter_watch import ParameterFact
from lightning_trainingkit.nn.diagnostics.untrained import group_names, listed

__all__ = ["find_normalisation_off", "uncalled_norms"]

_LEAST = 5  # looked training steps without which nothing is said
_LARGE_EPS = 0.1  # share of the variance


_REASONS = {
    "never called": (
        "is defined, and no training step that was looked at calls it",
        "Call it in `forward`, or delete it.",
    ),
    "momentum": (
        "has momentum 0: its running statistics never move, and evaluation normalises by the initial ones",
        "Use torch's default: `nn.BatchNorm2d(channels, momentum=0.1)`.",
    ),
    "small momentum": (
        "has a momentum of {momentum:g} for {tracked} batches: its running variance ({running_variance:.2g}) is far "
        "from the variance of the batches ({variance:.2g}), and evaluation normalises by it",
        "Use torch's default: `nn.BatchNorm2d(channels, momentum=0.1)`.",
    ),
    "no statistics": (
        "keeps no running statistics: the evaluation of an image depends on the other images of its batch",
        "Build it with `track_running_stats=True`, or use a norm without batches: `nn.GroupNorm(groups, channels)`.",
    ),
    "initial statistics": (
        "is in eval mode in training, with its initial statistics (mean 0, variance 1): it does not normalise",
        "Put it in training mode: `layer.train()`. Freeze the statistics of trained layers only.",
    ),
    "one image": (
        "sees batches of one image: training normalises by that image, evaluation by the running statistics",
        "Use larger batches (`batch_size=16`), or a norm without batches: `nn.GroupNorm(groups, channels)`.",
    ),
    "one value": (
        "takes each mean over {values} values: its output does not depend on the size of its input",
        "Normalise over more values: fewer groups, `nn.GroupNorm(1, channels)`, a larger batch, or no norm here.",
    ),
    "eps": (
        "has an eps of {eps:g}, and the variance of its input is {variance:.2g}: it hardly normalises",
        "Use torch's default: `eps=1e-5`.",
    ),
}
"""Reason to what a layer does, and the advice."""


def find_normalisation_off(
    facts: Mapping[str, NormFact],
    training: Mapping[str, CallFact],
    validation: Mapping[str, CallFact],
    *,
    looks: int,
    uncalled: Collection[str],
    parts: Collection[str],
) -> list[Finding]:
    """Find normalisation layers that do not do what they are for. Frozen layers are left out.

    Args:
        facts: Layer name to its state.
        training: Layer name to its calls in training.
        validation: Layer name to its calls in validation.
        looks: Number of looked training steps.
        uncalled: Names of the layers that no step calls, and whose parameters get no gradient.
        parts: Names of the layers in a part in eval mode, which is another finding.

    Returns:
        One finding for each reason. ``value`` is the number of layers.
    """
    reasons: dict[str, list[str]] = {}
    for name, fact in facts.items():
        if name in uncalled:
            reasons.setdefault("never called", []).append(name)
        elif fact.trained is not False and looks >= _LEAST and name in training and training[name].called:
            reason = _reason(fact, training[name], validated=name in validation and validation[name].called)
            if reason and not (reason == "initial statistics" and name in parts):
                reasons.setdefault(reason, []).append(name)
    return [_finding(reason, names, facts, training) for reason, names in reasons.items()]


def _reason(fact: NormFact, calls: CallFact, *, validated: bool) -> str:
    """The fault of a layer that training calls, or an empty text."""
    if fact.batch and calls.evaluating and not calls.training:
        return "initial statistics" if fact.initial and calls.evaluating >= _LEAST else ""
    if not calls.training or calls.training < _LEAST:
        return ""
    if fact.batch and not fact.statistics:
        return "no statistics" if validated else ""
    if fact.batch and not calls.moving:
        return "momentum"
    if fact.images and calls.samples == 1:
        return "one image"
    if calls.values and calls.values <= (2 if fact.batch else 1):
        return "one value"
    if calls.variance and math.isfinite(calls.variance):
        if fact.eps > USUAL_EPS and fact.eps >= _LARGE_EPS * calls.variance:
            return "eps"
        if fact.running_variance is not None and fact.momentum is not None and 0 < fact.momentum < SMALL_MOMENTUM:
            cold = (1 - fact.momentum) ** fact.tracked > 0.5  # more than half of the statistics are the initial ones
            far = not 1 / 3 < fact.running_variance / calls.variance < 3
            return "small momentum" if cold and far and validated else ""
    return ""


def _finding(reason: str, names: list[str], facts: Mapping[str, NormFact], training: Mapping[str, CallFact]) -> Finding:
    message, advice = _REASONS[reason]
    first = names[0]
    details = vars(facts[first]) | vars(training.get(first, CallFact()))
    subject = f"{first} (and {len(names) - 1} more layers like it)" if len(names) > 1 else first
    text = f"{subject} {message.format(**details)}."
    return Finding.of("normalisation_off", listed(names), float(len(names)), text, advice)


def uncalled_norms(
    facts: Mapping[str, NormFact],
    training: Mapping[str, CallFact],
    parameters: Mapping[str, ParameterFact],
    *,
    looks: int,
) -> list[str]:
    """Name the trained normalisation layers that no looked step calls, and whose parameters got no gradient.

    A layer in a larger part that gets no gradient is left out: the part is the finding.

    Args:
        facts: Layer name to its state.
        training: Layer name to its calls in training.
        parameters: Parameter name to its facts.
        looks: Number of looked training steps.
    """
    if looks < _LEAST:
        return []
    owner = {name: name.rpartition(".")[0] for name in parameters}
    without = [name for name, fact in parameters.items() if not fact.arrived]
    in_larger_part = {
        owner[name]
        for group in group_names(without, parameters)
        for inside in [[name for name in without if name == group or name.startswith(f"{group}.")]]
        if any(owner[name] not in facts for name in inside)
        for name in inside
    }
    return [
        name
        for name, fact in facts.items()
        if fact.trained
        and name not in in_larger_part
        and not (name in training and training[name].called)
        and all(not parameters[each].arrived for each in parameters if owner[each] == name)
    ]
