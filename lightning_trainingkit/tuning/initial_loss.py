"""Step 1: is the loss at the start the loss of chance?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.tuning.first_losses import FirstLosses, first_losses
from lightning_trainingkit.tuning.label_checks import label_findings, least_loss, out_of_range, pairs_examples
from lightning_trainingkit.tuning.one_device import on_one_device
from lightning_trainingkit.tuning.reason import detached_loss, reason
from lightning_trainingkit.tuning.spied_step import DetachedLossError, LabelsOutOfRangeError
from lightning_trainingkit.tuning.trial import Data, Trial
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["InitialLoss", "check_initial_loss"]

_ABOVE = (0.1, 1.5)  # a constant and a multiple of chance, above which HealthReport speaks too
_FAR_ABOVE = (1.0, 2.0)  # the same, where the step fails
_FAR_REGRESSION = 10.0  # times the variance of the targets: outputs begin near 0, and targets may not
_BELOW = 0.8  # share of the least loss without knowledge of the input


@dataclass(frozen=True, kw_only=True)
class InitialLoss(Verdict):
    """The answer of ``check_initial_loss``.

    Args:
        losses: The loss of each batch, without penalties.
        expected: The loss of outputs that say nothing about the target. None if it is unknown.
        loss_name: Name of the loss, such as ``"cross_entropy"``.

    Example:
        >>> answer = InitialLoss(
        ...     step="initial_loss",
        ...     verdict="pass",
        ...     message="The loss begins at 2.31.",
        ...     losses=(2.3, 2.32),
        ...     expected=2.303,
        ...     loss_name="cross_entropy",
        ... )
        >>> answer.line
        'pass. The loss begins at 2.31.'
    """

    losses: tuple[float, ...]
    expected: float | None
    loss_name: str


def check_initial_loss(
    module: L.LightningModule,
    data: Data,
    *,
    expected: float | None = None,
    batches: int = 8,
    trainer_options: Mapping[str, Any] | None = None,
) -> InitialLoss:
    """Compare the loss before any training with the loss of outputs that say nothing: the lecture's step 1.

    ``log C`` for softmax over ``C`` classes, ``C - 1`` for the lecture's hinge loss, ``(C - 1) / C`` for
    ``nn.MultiMarginLoss``, ``log 2`` for binary losses, also of several labels, and the targets' variance for
    ``mse_loss``. Another loss is measured with the outputs of the last layer at zero. A copy of the module runs, and
    makes no optimizer step.

    - **pass**: the interval over batches (two standard errors) reaches below 1.5 times the expected loss.
    - **warn**: it lies above, or far below, as after an earlier training.
    - **fail**: it lies above twice the expected loss, is not finite, or a fault was seen: a softmax before the loss,
      a loss of the wrong sign, labels beyond the outputs.

    Args:
        module: The module. It is left as it is.
        data: A DataModule, a train loader, or None for the module's own loader.
        expected: The loss to expect, penalties included. By default it comes from the loss that the step calls.
        batches: Number of training batches, at least 1. An epoch with fewer ends the step.
        trainer_options: Arguments of Lightning's Trainer, such as ``accelerator``. One device is used.

    Returns:
        The verdict, with ``losses``, ``expected``, ``loss_name``, and findings, the likely reason first.

    Raises:
        ValueError: If an argument is out of range, there is no batch, or the training step returns no loss.
        TypeError: If the module or the data cannot be copied.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> module = ImageClassifier("small_resnet", num_classes=10, model_options={"in_channels": 1})
        >>> answer = check_initial_loss(module, DigitsDataModule(), trainer_options={"accelerator": "cpu"})
        >>> answer.verdict, round(answer.expected, 2)
        ('pass', 2.3)
    """
    batches = _check.integer("batches", batches, "Leave it out for 8.", least=1)
    if expected is not None:
        expected = _check.number("expected", expected, "Give the loss of outputs that say nothing.")
    trial = Trial(module, data, on_one_device(trainer_options))
    try:
        seen = first_losses(trial, batches, of_step=expected is not None)
    except LabelsOutOfRangeError as error:
        return _answer("fail", "The training step cannot run.", (), None, error.loss, [out_of_range(error)])
    except DetachedLossError:
        return _answer("fail", "The training step cannot train.", (), None, "the loss", [detached_loss()])
    if expected is not None:
        seen.expected, seen.classifies = [expected] * len(seen.losses), True
    return _judge(trial, seen, batches)


def _judge(trial: Trial, seen: FirstLosses, batches: int) -> InitialLoss:
    mean, error = fmean(seen.losses), _error(seen.losses)
    measured = f"The loss begins at {mean:.3g}{f' ± {2 * error:.2g}' if error else ''} ({seen.name})"
    notes = list(seen.notes)
    findings = [*seen.findings, *label_findings(seen.labels, seen.outputs)]
    if not seen.expected:
        advice = "Give the loss of outputs that say nothing, such as `expected=math.log(10)` for 10 classes."
        message = f"{measured}. No loss of torch and no last layer were found, so that chance is unknown."
        wrong = [each for each in findings if each.level != "advice"]
        return _answer("fail" if wrong else "warn", message, seen.losses, None, seen.name, findings, notes, advice)
    chance = fmean(seen.expected)
    measured += f"; outputs that say nothing give {chance:.3g}."
    low, high = mean - 2 * error, mean + 2 * error
    limits = [constant + factor * abs(chance) for constant, factor in (_ABOVE, _FAR_ABOVE)]
    if not seen.classifies:
        limits = [_FAR_REGRESSION * abs(chance), math.inf]
    verdict = "pass"
    if not math.isfinite(mean):
        verdict = "fail"
        findings.insert(0, _not_finite(mean))
    elif low > limits[0]:
        verdict = "fail" if low > limits[1] else "warn"
        findings.append(_too_large(trial, seen, batches, mean, limits[0]))
    elif (
        seen.classifies
        and not pairs_examples(seen.labels, seen.outputs)
        and chance > 0
        and high < _BELOW * min(chance, least_loss(seen.labels, chance))
    ):
        verdict = "warn"
        findings.append(_below(mean, chance))
    if any(each.level in ("wrong", "harmful") for each in findings):
        verdict = "fail"
    if verdict == "pass" and any(each.kind == "many_unused_classes" for each in findings):
        verdict = "warn"
    if verdict != "pass":
        findings.sort(key=lambda each: each.kind == "input_not_centred")
    return _answer(verdict, measured, seen.losses, chance, seen.name, findings, notes)


def _answer(
    verdict: Any,
    measured: str,
    losses: Any,
    chance: float | None,
    name: str,
    findings: list[Finding],
    notes: Any = (),
    advice: str = "",
) -> InitialLoss:
    first = findings[0] if findings and verdict != "pass" else None
    return InitialLoss(
        step="initial_loss",
        verdict=verdict,
        message=measured if first is None else f"{measured} {first.message}",
        advice=advice if first is None else first.advice,
        value=fmean(losses) if losses else None,
        findings=tuple(findings),
        notes=tuple(notes),
        losses=tuple(losses),
        expected=chance,
        loss_name=name,
    )


def _error(losses: list[float]) -> float:
    """Standard error of the mean over batches. 0 for a single batch."""
    return stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 and all(map(math.isfinite, losses)) else 0.0


def _too_large(trial: Trial, seen: FirstLosses, batches: int, mean: float, limit: float) -> Finding:
    """Whether the input or the last layer makes the loss too large, shown by a run with scaled inputs."""
    if seen.inputs_unscaled:
        scaled = fmean(first_losses(trial, batches, scale_input=True).losses)
        if scaled < limit or scaled - limit < 0.5 * (mean - limit):
            return Finding.of(
                "wrong_initial_loss",
                "the input",
                mean,
                f"The input is not scaled: with mean 0 and std 1, the loss begins at {scaled:.3g}.",
                "Subtract the mean and divide by the std: `v2.Normalize(mean, std)`.",
            )
    if not seen.classifies:
        return Finding.of(
            "wrong_initial_loss",
            "the outputs",
            mean,
            "The outputs are far from the targets at the start.",
            "Scale the targets to mean 0 and std 1, or initialise the last layer smaller: "
            f'`InitOverride({{"{seen.head or "NAME"}": "normal(0.01)"}})`.',
        )
    return Finding.of(
        "wrong_initial_loss",
        seen.head or "the outputs",
        mean,
        f"The outputs{f' of {seen.head}' if seen.head else ''} are too large at the start.",
        f'Initialise the last layer smaller: `InitOverride({{"{seen.head or "NAME"}": "normal(0.01)"}})`.',
    )


def _below(mean: float, chance: float) -> Finding:
    return reason(
        "starts_below_chance",
        "the loss",
        mean,
        "Without training, no network knows the labels: its weights were trained before, or the labels leak into the "
        "input.",
        "Check a new network, and look for the label among the inputs. For trained weights it is as it should be.",
    )


def _not_finite(mean: float) -> Finding:
    return Finding.of(
        "non_finite",
        "the loss",
        mean,
        "The loss is not finite before the first optimizer step.",
        "Look for NaN in the data (`torch.isfinite(x).all()`), and for the logarithm, root or quotient of zero.",
    )
