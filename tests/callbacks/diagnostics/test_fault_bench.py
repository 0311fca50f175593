"""FaultBench in small: a fault of each kind is named among the first three causes, ten healthy trainings are silent."""

from dataclasses import replace

import pytest

import lightning_trainingkit as kit
from lightning_trainingkit.nn.diagnostics.finding import KINDS, Finding
from tests.benchmarks.fault_bench.cases import HALVES, SEEDS, faulty_cases, healthy_cases
from tests.benchmarks.fault_bench.cures import CURES, cure
from tests.benchmarks.fault_bench.judge import alarms, judge
from tests.benchmarks.fault_bench.plants import PLANTS
from tests.benchmarks.fault_bench.run import Outcome, run_case
from tests.benchmarks.fault_bench.settings import Settings

FAULTS = {
    "non_finite": "images with NaN, extreme, mlp",
    "wrong_loss_sign": "loss negated, extreme, mlp",
    "symmetric_units": "constant weights, extreme, mlp",
    "dead_units": "dead units, extreme 100 %, mlp",
    "saturated_units": "tanh with large weights, extreme, mlp",
    "exploding_activations": "weights too large, extreme, mlp",
    "exploding_gradient": "deep, gain too large, extreme, mlp",
    "vanishing_activations": "weights too small, extreme, mlp",
    "vanishing_gradient": "sigmoid layers, extreme, mlp",
    "learning_rate_too_high": "rate too high, edge, mlp",
    "learning_rate_too_low": "rate too low, extreme, mlp",
    "update_too_small": "Adam's epsilon too large, extreme, mlp",
    "over_regularised": "L1 penalty, extreme, cnn",
    "loss_not_falling": "labels shuffled, extreme, mlp",
    "parameters_not_trained": "features detached, extreme, mlp",
    "eval_mode_in_training": "eval mode from the start, extreme, cnn_bn",
    "evaluation_in_training_mode": "no eval hook, extreme, cnn_bn",
    "normalisation_off": "running statistics never move, extreme, cnn_bn",
    "scheduler_not_stepping": "schedule not returned, edge, mlp",
    "gradients_not_cleared": "gradients kept by a hook, extreme, cnn_bn",
    "batch_leaks": "reshape mixes images, extreme, mlp",
    "softmax_before_loss": "softmax in the model, extreme, mlp",
}
HEALTHY = (
    "best rate, mlp, sgd",
    "best rate, cnn_bn, adamw",
    "images 0..255, mlp",
    "zero head, mlp",
    "frozen front, mlp",
    "manual, mlp",
    "new head, cnn_bn, sgd",
    "regression, mlp",
    "warm-up from 0, mlp",
    "zero last gains, resnet, sgd",
)


def find(cases, name):
    return next(case for case in cases if case.name.startswith(name))


def test_every_kind_above_advice_has_a_fault_and_every_kind_a_cure():
    kinds = {kind for kind, level in KINDS.items() if level != "advice"}
    assert kinds == set(FAULTS)
    assert kinds == {kind for plant in PLANTS.values() for kind in plant.expect}
    assert set(KINDS) == set(CURES)


def test_the_halves_share_no_family_and_each_cause_is_in_both():
    faults = faulty_cases()
    families = [{case.plant for case in healthy_cases() if case.half == half} for half in HALVES]
    assert not families[0] & families[1]
    causes = [{case.expect for case in faults if case.half == half} for half in HALVES]
    assert causes[0] == causes[1]
    cells = [{(case.expect, case.plant, case.grade) for case in faults if case.half == half} for half in HALVES]
    alone = [expect for expect, _, _ in cells[0] & cells[1]]  # one fault stands for this cause, in two models
    assert all(sum(case.expect == expect for case in faults) == 2 * len(SEEDS) for expect in alone)
    assert len(faults) >= 300
    assert len(healthy_cases()) >= 200
    assert len(PLANTS) >= 40


def test_a_fault_is_judged_by_its_kind_or_by_the_cure_that_the_advice_brings():
    harmful = find(faulty_cases([0]), "weights too small, extreme, mlp")
    silent = find(faulty_cases([0]), "features detached, extreme, mlp")

    def verdict(case, kinds, score=0.5, cured=(), verified=None):
        findings = [Finding.of(kind, "net", 0.0, "", "") for kind in kinds]
        outcome = Outcome(score, 1.0, True, findings, verified)
        each = judge(case, outcome, 0.95, dict(cured))
        return each.counts, each.detected, each.right

    assert verdict(harmful, ["vanishing_gradient"]) == (True, True, 0)
    assert verdict(harmful, ["dead_units", "dead_units", "vanishing_gradient"]) == (True, True, 1)
    assert verdict(harmful, ["dead_units"], cured={"dead_units": 0.86}) == (True, True, 0)
    assert verdict(harmful, ["dead_units"], cured={"dead_units": 0.85}) == (True, True, None)
    assert verdict(harmful, ["input_not_centred"]) == (True, False, None)
    assert verdict(harmful, [], score=0.86) == (False, False, None)
    assert verdict(silent, ["parameters_not_trained"], score=0.95, verified=True) == (True, True, 0)
    assert verdict(silent, ["dead_units"], cured={"dead_units": 0.95}, verified=True) == (True, True, None)
    assert verdict(silent, [], verified=False) == (False, False, None)


def test_the_advice_names_the_rate_to_take():
    settings = Settings(rate=1e-8)
    low = Finding.of("learning_rate_too_low", "lr", 1e-8, "", "Set `lr=3e-2` in configure_optimizers.")
    assert cure(settings, low).lr == 0.03
    assert cure(settings, replace(low, advice="Raise it.")).lr == pytest.approx(3e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_the_cause_of_a_fault_is_named(kind):
    case = find(faulty_cases([0]), FAULTS[kind])
    outcome = run_case(case, [kit.HealthReport(verbose=False)])
    assert outcome.verified in (None, True)
    assert kind in case.expect
    assert case.expect & {finding.kind for finding in alarms(outcome)[:3]}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_raises_no_alarm(name):
    outcome = run_case(find(healthy_cases(), name), [kit.HealthReport(verbose=False)])
    assert outcome.score > 0.8
    assert not alarms(outcome)
