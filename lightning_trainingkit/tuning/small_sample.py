"""Step 2: can the network learn a few minibatches by heart?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.diagnostics.health_report import HealthReport
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.tuning.label_checks import out_of_range
from lightning_trainingkit.tuning.memorise import Memorise
from lightning_trainingkit.tuning.one_device import on_one_device
from lightning_trainingkit.tuning.reason import detached_loss
from lightning_trainingkit.tuning.sample import Sample
from lightning_trainingkit.tuning.sample_labels import changing_labels, two_labels
from lightning_trainingkit.tuning.sample_look import Look
from lightning_trainingkit.tuning.small_sample_reasons import (
    far_targets,
    frozen,
    frozen_part,
    is_certain,
    not_to_judge,
    rate_at_fault,
    thawing_helps,
    too_small,
)
from lightning_trainingkit.tuning.spied_step import DetachedLossError, LabelsOutOfRangeError
from lightning_trainingkit.tuning.trial import Data, Trial
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["SmallSample", "overfit_small_sample"]

_NEARLY = 0.9  # right predictions that make a warning of a failure
_NEARLY_LEFT = 0.3  # share of the loss, where no class is predicted
# Findings of HealthReport that another trial shows better, or that belong to a training on all data.
_LEFT_OUT = {
    "learning_rate_too_high",
    "learning_rate_too_low",
    "update_too_small",
    "loss_not_falling",
    "scheduler_not_stepping",
    "over_regularised",
    "wrong_initial_loss",
}


@dataclass(frozen=True, kw_only=True)
class SmallSample(Verdict):
    """The answer of ``overfit_small_sample``.

    Args:
        accuracies: Share of right predictions in each epoch over the sample. Empty where no classes are predicted.
        losses: Mean loss of each epoch.
        steps: Number of batches that were trained on.
        switched_off: What was switched off: dropout, weight decay, penalties, schedules, random transforms.

    Example:
        >>> answer = SmallSample(
        ...     step="small_sample",
        ...     verdict="pass",
        ...     message="All is right.",
        ...     accuracies=(0.6, 1.0),
        ...     losses=(1.2, 0.1),
        ...     steps=10,
        ...     switched_off=("weight decay (0.01)",),
        ... )
        >>> answer.line
        'pass. All is right.'
    """

    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    steps: int
    switched_off: tuple[str, ...]


def overfit_small_sample(
    module: L.LightningModule,
    data: Data,
    *,
    batches: int = 5,
    max_steps: int = 1000,
    trainer_options: Mapping[str, Any] | None = None,
) -> SmallSample:
    """Train a copy on a few minibatches until it has learnt them by heart: the lecture's step 2.

    Dropout, weight decay, penalties, schedules and random transforms are off. Causes are shown by short trials with
    other learning rates, or with the frozen layers trained.

    - **pass**: 100 % of the predictions are right (99 % where an example has many labels), or 10 % of the loss is left.
    - **warn**: a fault was seen all the same, 90 % are right, or the loss still falls at the end. It warns too if
      the training step draws random numbers, as mixup does, or several optimizers work, as in a GAN.
    - **fail**: it was not learnt, labels change from step to step, or one input has two labels.

    Labels that were shuffled once, before training, can be learnt by heart. This step does not see them.

    Args:
        module: The module. It is left as it is.
        data: A DataModule, a train loader, or None for the module's own loader.
        batches: Number of minibatches, at least 1. The lecture takes 5 to 10.
        max_steps: Largest number of steps, at least 1.
        trainer_options: Arguments of Lightning's Trainer, such as ``accelerator``. One device is used.

    Returns:
        The verdict, with ``accuracies``, ``losses``, ``steps``, ``switched_off``, and findings, likely reason first.

    Raises:
        ValueError: If an argument is out of range, the training set has fewer than 2 examples, or no loss is returned.
        TypeError: If the module or the data cannot be copied, or the data gives several train loaders.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> module = ImageClassifier("small_resnet", num_classes=10, model_options={"in_channels": 1, "width": 8})
        >>> answer = overfit_small_sample(module, DigitsDataModule(16), trainer_options={"accelerator": "cpu"})
        >>> answer.verdict, answer.accuracies[-1]
        ('pass', 1.0)
    """
    batches = _check.integer("batches", batches, "The lecture takes 5 to 10.", least=1)
    max_steps = _check.integer("max_steps", max_steps, "Leave it out for 1000.", least=1)
    return _Step(module, Trial(module, data, on_one_device(trainer_options)), Sample(batches), max_steps).answer()


class _Step:
    """The trials of one answer."""

    def __init__(self, module: L.LightningModule, trial: Trial, sample: Sample, max_steps: int) -> None:
        self.module, self.trial, self.sample, self.max_steps = module, trial, sample, max_steps
        self.chance: float | None = None
        self.known_alone = False
        self.notes: list[str] = []
        self.own: Memorise | None = None
        self.penalty = ""
        self.draws = self.other_terms = False

    def answer(self) -> SmallSample:
        look = Look(self.sample)
        try:
            self.trial.run(look, look.prepare)
            look.check_labels()
        except LabelsOutOfRangeError as error:
            return self.say("fail", "The training step cannot run.", [out_of_range(error)])
        except DetachedLossError:
            return self.say("fail", "The training step cannot train.", [detached_loss()])
        if not look.losses:
            raise ValueError(
                "`training_step` must return a loss, got None in each batch. Return the loss, or call "
                "`self.manual_backward(loss)`."
            )
        self.notes += self.sample.notes
        certain, self.draws = changing_labels(look)
        twice = two_labels(look, self.sample)
        faults = [each for each in [*certain, twice] if each is not None and each.level != "advice"]
        if faults:
            return self.say("fail", f"{self.sample.size} examples cannot be learnt by heart.", faults)
        self.know(look)
        own = self.own = self.make(1.0, self.max_steps)
        health = HealthReport(verbose=False)
        trained = self.trial.run([own, health], own.prepare)
        if not own.steps:
            raise ValueError(
                "`training_step` must run, got no loss in any batch. Does `optimizer_step` call "
                "`optimizer.step(closure=optimizer_closure)`?"
            )
        self.notes += health.notes
        findings = [each for each in health.findings if each.kind not in _LEFT_OUT]
        if own.reached:
            self.notes += filter(None, [frozen_part(trained)[2]])
            seen = [*certain, *filter(is_certain, findings)]
            return self.say("warn" if seen else "pass", self.measured(), seen or findings)
        return self.explain(own, certain, findings, trained)

    def know(self, look: Look) -> None:
        """Learn from the look what the loss is made of."""
        if look.parts and look.is_alone:
            self.chance = sum(base for _, base in look.parts) / len(look.parts)
        if look.penalty:
            self.known_alone = True
            self.penalty = f"penalties ({look.penalty:.3g} beside a loss of {look.parts[0][0]:.3g})"
        elif look.parts and abs(look.losses[0] - look.parts[0][0]) > 0.01 * abs(look.parts[0][0]):
            self.chance, self.other_terms = None, self.module.automatic_optimization

    def make(self, factor: float, steps: int, *, thaw: bool = False) -> Memorise:
        return Memorise(self.sample, steps, chance=self.chance, known_alone=self.known_alone, factor=factor, thaw=thaw)

    def run(self, trial: Memorise) -> Memorise:
        self.trial.run(trial, trial.prepare)
        return trial

    def explain(
        self, own: Memorise, certain: list[Finding], findings: list[Finding], trained: L.LightningModule
    ) -> SmallSample:
        """Find the reason of a sample that was not learnt."""
        excuse = not_to_judge(own, self.draws, self.other_terms) or far_targets(own)
        are_frozen = any(not each.requires_grad for each in trained.parameters())
        found: Finding | None = None
        if far_targets(own) is None and own.optimizers == 1 and not any(map(is_certain, findings)):
            if are_frozen:
                thawed = self.run(self.make(1.0, self.max_steps, thaw=True))
                found = thawing_helps(own, thawed, trained)
            found = found or rate_at_fault(own, self.make, self.run)
            if found is not None:
                findings = [found, *(each for each in findings if each.level != "harmful" or is_certain(each))]
        findings = [*certain, *findings]
        if not any(each.level != "advice" for each in findings):
            if excuse is None and are_frozen and own.left > 0.9:
                excuse = frozen(trained, "Training them too did not help.")
            findings.insert(0, excuse or too_small(own, trained, self.sample.size))
        nearly = own.accuracies[-1] >= _NEARLY if own.accuracies else own.left <= _NEARLY_LEFT
        nearly |= findings[0].kind in ("too_few_steps", "step_draws", "several_optimizers", "other_terms")
        return self.say("warn" if nearly and math.isfinite(own.left) else "fail", self.measured(), findings)

    def measured(self) -> str:
        """What the training reached, in words."""
        own = self.own
        assert own is not None
        what = f"{self.sample.size} {'examples' if self.sample.indices else 'batches'}"
        if own.accuracies:
            share = math.floor(1000 * own.accuracies[-1]) / 10
            return f"{share:g} % of the predictions for {what} are right after {len(own.steps)} steps."
        return f"On {what}, {own.course}; {own.floor * own.base:.3g} is low enough."

    def say(self, verdict: Literal["pass", "warn", "fail"], measured: str, findings: list[Finding]) -> SmallSample:
        own = self.own
        first = findings[0] if findings and verdict != "pass" else None
        off = [] if own is None else list(dict.fromkeys([*own.off, *own.dropout.names]))
        off += [self.penalty] if self.penalty else []
        off += ["random transforms of the data set"] if self.sample.random_transforms and own is not None else []
        return SmallSample(
            step="small_sample",
            verdict=verdict,
            message=measured if first is None else f"{measured} {first.message}",
            advice="" if first is None else first.advice,
            value=None if own is None else own.accuracies[-1] if own.accuracies else own.left,
            findings=tuple(findings),
            notes=(*self.notes, *([f"Switched off: {', '.join(off)}."] if off else [])),
            accuracies=() if own is None else tuple(own.accuracies),
            losses=() if own is None else tuple(own.losses),
            steps=0 if own is None else len(own.steps),
            switched_off=tuple(off),
        )
