"""Layers in the wrong mode in training and in validation, and modes that are meant."""

import pytest
import torch
from torch import nn

from lightning_trainingkit import MonteCarloDropout
from tests.callbacks.diagnostics.checked_fit import ManualNet, Net, fit, kinds

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start")


class PretrainedInEvalMode(Net):
    """A backbone that its library hands out in eval mode, which Lightning keeps."""

    def __init__(self):
        super().__init__()
        self.body.eval()


class EvalForGood(Net):
    """Switches to eval mode by hand after the first epoch."""

    def on_train_epoch_start(self):
        if self.current_epoch:
            self.eval()


class EvalInTheStep(Net):
    def training_step(self, batch, batch_idx):
        self.body.eval()
        return self.loss(batch)


@pytest.mark.parametrize(
    ("module", "where", "line"),
    [
        (PretrainedInEvalMode, "body", 'self.get_submodule("body").train()'),
        (EvalForGood, "the whole module", "self.train()"),
        (EvalInTheStep, "body", 'self.get_submodule("body").train()'),
    ],
)
def test_eval_mode_in_training_is_found(module, where, line):
    (finding,) = fit(module()).final
    assert (finding.kind, finding.where, finding.value) == ("eval_mode_in_training", where, 2)
    assert "body.1, body.4" in finding.message
    assert line in finding.advice


class FrozenInEvalMode(Net):
    def __init__(self):
        super().__init__()
        self.body.requires_grad_(False).eval()


class FrozenBatchNorm(Net):
    """As in detection: eval mode and fixed parameters, in a part that trains."""

    def __init__(self):
        super().__init__()
        self.body[1].requires_grad_(False).eval()


class FixedStatistics(Net):
    """Trained BatchNorm parameters, and statistics that an earlier training left."""

    def __init__(self):
        super().__init__()
        self.body[1].running_mean += 0.1
        self.body[1].eval()


class DropoutOff(Net):
    def __init__(self):
        super().__init__()
        self.body[4].eval()


class AdapterInAFrozenPart(Net):
    """Few trained parameters in a large frozen part in eval mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Dropout(), nn.Linear(16, 1)).requires_grad_(False)
        self.body.append(nn.Linear(1, 16)).eval()


class PseudoLabels(Net):
    """Each step runs the net in eval mode first."""

    def training_step(self, batch, batch_idx):
        self.eval()
        with torch.no_grad():
            self(batch[0])
        self.train()
        return self.loss(batch)


class UncalledInEvalMode(Net):
    """A second net in eval mode that only validation uses."""

    def __init__(self):
        super().__init__()
        self.side = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()

    def training_step(self, batch, batch_idx):
        return self.loss(batch) + self.side[0](torch.ones(2)).sum()


@pytest.mark.parametrize(
    "module",
    [
        Net,
        FrozenInEvalMode,
        FrozenBatchNorm,
        FixedStatistics,
        DropoutOff,
        AdapterInAFrozenPart,
        PseudoLabels,
        UncalledInEvalMode,
    ],
)
def test_modes_on_purpose_are_no_finding(module):
    assert kinds(module()) == []


class TrainInValidation(Net):
    def validation_step(self, batch, batch_idx):
        self.train()
        super().validation_step(batch, batch_idx)


class TrainBeforeValidation(Net):
    def on_validation_epoch_start(self):
        self.body.train()


class TrainInsideTheStep(Net):
    """Switches the whole module inside the step."""

    def validation_step(self, batch, batch_idx):
        self.train()
        super().validation_step(batch, batch_idx)
        self.eval()


class DropoutOn(Net):
    """Dropout alone, for the whole validation: Monte Carlo dropout, or a slip."""

    def on_validation_epoch_start(self):
        self.body[4].train()


@pytest.mark.parametrize("module", [TrainInValidation, TrainBeforeValidation, TrainInsideTheStep])
def test_evaluation_in_training_mode_is_found(module):
    (finding,) = fit(module()).final
    assert finding.kind == "evaluation_in_training_mode"
    assert finding.where == "body.1, body.4"
    assert "1 BatchNorm, 1 that draw" in finding.message
    assert "self.eval()" in finding.advice


def test_dropout_alone_has_two_readings():
    (finding,) = fit(DropoutOn()).final
    assert finding.where == "body.4"
    assert "Monte Carlo dropout on purpose" in finding.message


class DropoutOnInsideTheStep(Net):
    """Monte Carlo dropout by hand."""

    def validation_step(self, batch, batch_idx):
        self.body[4].train()
        self.log("val/loss", torch.stack([self.loss(batch) for _ in range(3)]).mean())
        self.body[4].eval()


class TrainingNetBeside(Net):
    """A part in training mode that validation does not call."""

    def __init__(self):
        super().__init__()
        self.other = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())

    def training_step(self, batch, batch_idx):
        return self.loss(batch) + self.other(torch.randn(8, 2)).square().sum()

    def on_validation_epoch_start(self):
        self.other.train()


@pytest.mark.parametrize("module", [DropoutOnInsideTheStep, TrainingNetBeside, ManualNet])
def test_validation_on_purpose_is_no_finding(module):
    assert kinds(module()) == []


def test_the_kits_monte_carlo_dropout_is_no_finding():
    module = Net()
    module.net = nn.Sequential(module.body, module.middle, module.head)
    module.forward = lambda x: module.net(x)
    assert kinds(module, callbacks=[MonteCarloDropout(2, target="net", stages="validate", output="classes")]) == []
