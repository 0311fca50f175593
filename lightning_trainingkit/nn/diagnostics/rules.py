"""Judge a training by what was observed."""

import math
from collections.abc import Iterable

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.observation import Observation
from lightning_trainingkit.nn.diagnostics.rules_loss import NOT_FALLING, non_finite, not_falling, regularised, upwards
from lightning_trainingkit.nn.diagnostics.rules_rate import rate_findings
from lightning_trainingkit.nn.diagnostics.rules_start import start_findings
from lightning_trainingkit.nn.diagnostics.symptoms import Symptoms

__all__ = ["is_hopeless", "judge", "ranked"]

_LEAST_STEPS = 100  # before the loss can be judged, unless the fit is over
_LEAST_AT_END = 30
_SYMPTOMS = {"learning_rate_too_low", "update_too_small", "loss_not_falling"}
_LEAST_WITHOUT_EPOCH = 1000  # steps after which an epoch need not be over, and a loss without a cause counts
_SUDDEN = 3.0  # last finite loss, relative to the smallest one before it


def judge(observation: Observation) -> list[Finding]:
    """Find what keeps a training from learning, most likely cause first.

    - **A loss that is not finite** counts at once.
    - **Other findings** wait for 100 steps and an epoch, for 1,000 steps, or for the end of the fit.
    - **A training that goes on from an earlier one, or that lowers several losses in turn**, is judged by its first
      rule alone, since its loss need not fall.

    Args:
        observation: What was seen so far.

    Returns:
        Findings of level ``"harmful"``.
    """
    if not observation.losses.count or not observation.looks:
        return []
    symptoms = Symptoms(observation)
    broken = list(non_finite(symptoms))
    if observation.resumed or not observation.alone or symptoms.trained_before:
        return broken
    if broken:
        return _broken(symptoms, broken)
    least = _LEAST_AT_END if observation.final else _LEAST_STEPS
    long = observation.final or observation.epochs or observation.losses.count >= _LEAST_WITHOUT_EPOCH
    if observation.losses.count < least or not long:
        return []
    if math.isnan(symptoms.left):
        return list(upwards(symptoms))
    causes = [*upwards(symptoms), *regularised(symptoms), *start_findings(symptoms)]
    rates = [each for each in rate_findings(symptoms) if not causes or each.kind not in _SYMPTOMS]
    found = [*causes, *rates]
    if not found and (observation.final or observation.losses.count >= _LEAST_WITHOUT_EPOCH):
        return list(not_falling(symptoms))
    return found


def _broken(symptoms: Symptoms, broken: list[Finding]) -> list[Finding]:
    """Order the causes of a loss that is not finite: a sudden one has no cause in the steps before."""
    step = symptoms.first_non_finite or 0
    before = [loss for loss in symptoms.losses.first[:step] if math.isfinite(loss)]
    if not before or before[-1] <= _SUDDEN * min(before):
        promises = [each for each in symptoms.promises if math.isfinite(each)]
        if max(promises, default=0.0) < 5:
            return broken
    causes = [*upwards(symptoms), *regularised(symptoms), *start_findings(symptoms), *rate_findings(symptoms)]
    return [*causes, *broken]


def ranked(certain: Iterable[Finding], inferred: Iterable[Finding]) -> list[Finding]:
    """Order findings: a wrong sign first, then what the run does wrong, then what was inferred, then advice.

    Args:
        certain: Findings from the first batch and the training loop.
        inferred: Findings of ``judge``, in their order.
    """
    inferred = list(inferred)
    kinds = {finding.kind for finding in inferred}
    explained = bool(kinds & {"symmetric_units", "dead_units", "saturated_units", "vanishing_activations"})

    def place(finding: Finding) -> float:
        if finding.kind == "wrong_loss_sign":
            return 0
        if finding.level == "advice":
            return 3
        if finding.kind == "parameters_not_trained" and explained and "exactly zero" in finding.message:
            return 2
        return 1 + (finding.kind == "softmax_before_loss") / 2  # a softmax over the batch is a leak first

    before = sorted(certain, key=place)
    if {"batch_leaks", "softmax_before_loss"} & {finding.kind for finding in before}:  # they explain the first loss
        inferred = [finding for finding in inferred if finding.where != "the outputs"]
    first = [finding for finding in before if place(finding) < 2]
    last = [finding for finding in before if place(finding) >= 2]
    if any(finding.level == "wrong" for finding in first) and kinds <= _SYMPTOMS:
        inferred = []  # they have their cause
    return [*first, *inferred, *last]


def is_hopeless(observation: Observation, findings: Iterable[Finding]) -> bool:
    """Whether a training cannot recover: its loss is not finite, or has not fallen for a harmful reason."""
    kinds = {finding.kind for finding in findings if finding.level == "harmful"}
    if "non_finite" in kinds:
        return True
    return bool(kinds) and Symptoms(observation).left > NOT_FALLING
