"""The rules on observations made by hand: what is said, and what is not said of a training that only looks odd."""

import math
from dataclasses import replace

import pytest

from lightning_trainingkit.functional.gradient_statistics import GradientSummary
from lightning_trainingkit.functional.statistics import ActivationSummary
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.observation import Look, Losses, Observation
from lightning_trainingkit.nn.diagnostics.rules import is_hopeless, judge, ranked

LAYER = ActivationSummary(1, 64, 0.3, 0.5, 0.0, 3.0, None, 0.1, 0.5, 0.4, True, [1], [0.0, 3.0])
WEIGHT = GradientSummary(100, 1, 0.5, None, 5.0, 0.01, 0.0, 0.3, 0.8)
STEPS = (0, 1, 2, 4, 8, 16, 32, 50, 64, 100)


def observe(losses=None, layers=None, weights=None, spread=1.0, rates=None, **facts):
    """A training of 120 steps whose loss falls from 2.3 to 0.1, changed as given."""
    found = Losses()
    found.extend(losses or [2.3 * 0.97**step for step in range(120)])
    layers = layers or {"net.1": LAYER, "net.3": LAYER}
    weights = weights or {f"net.{number}.weight": WEIGHT for number in (0, 2, 4)}
    looks = [
        Look(step, found.first[step], layers, weights, dict.fromkeys(weights, spread), [rates(step) if rates else 0.1])
        for step in STEPS
    ]
    facts = {"chance": math.log(10), "input_size": 1.0, "final": True, "progress": 1.0, "epochs": 6, **facts}
    return Observation(losses=found, looks=looks, **facts)


def kinds(observation):
    return [finding.kind for finding in judge(observation)]


def test_a_good_training_is_silent():
    assert kinds(observe()) == []


STUCK = [2.3] * 120


@pytest.mark.parametrize(
    ("observation", "kind"),
    [
        (observe(STUCK), "loss_not_falling"),
        (observe(STUCK, layers={"a": replace(LAYER, dead=0.8)}), "dead_units"),
        (observe(STUCK, layers={"a": replace(LAYER, saturated=0.9)}), "saturated_units"),
        (observe(STUCK, layers={"a": replace(LAYER, between_images=1e-5)}), "vanishing_activations"),
        (observe(STUCK, spread=1e-6), "symmetric_units"),
        (observe(STUCK, dropout={"drop": 0.95}), "over_regularised"),
        (observe(STUCK, penalty_share=0.95), "over_regularised"),
        (observe(STUCK, weights={"a.weight": replace(WEIGHT, descent=-0.9)}), "wrong_loss_sign"),
        (observe(STUCK, weights={"a.weight": replace(WEIGHT, update_norm=1e-7)}), "update_too_small"),
        (observe(STUCK, weights={"a.weight": replace(WEIGHT, update_norm=1e-3)}), "learning_rate_too_low"),
        (observe(STUCK, weights={"a.weight": replace(WEIGHT, update_norm=100.0)}), "learning_rate_too_high"),
        (observe([math.nan] * 120), "non_finite"),
        (observe([2.3] * 60 + [math.nan] * 60), "non_finite"),
        (observe([9e5] * 120, layers={"a": replace(LAYER, std=500.0)}), "exploding_activations"),
        (observe(STUCK, input_size=200.0), "exploding_activations"),
        (observe(STUCK, input_size=0.003), "vanishing_activations"),
    ],
)
def test_the_first_finding(observation, kind):
    assert kinds(observation)[0] == kind


def test_a_gradient_that_fades_is_named_by_its_first_layers():
    weights = {f"net.{number}.weight": replace(WEIGHT, gradient_norm=10.0 ** (number - 8)) for number in range(9)}
    (finding,) = [each for each in judge(observe(STUCK, weights=weights)) if each.kind == "vanishing_gradient"]
    assert finding.where == "net.0"
    assert finding.value < 1e-6


@pytest.mark.parametrize(
    "observation",
    [
        observe(STUCK, layers={"a": replace(LAYER, dead=0.6, images=2)}),  # batches of two images
        observe(STUCK, layers={"a": replace(LAYER, between_images=0.0, images=1)}),
        observe(STUCK, layers={"queries": replace(LAYER, between_images=0.0), "b": LAYER}),  # a decoder's queries
        observe(STUCK, layers={"a": replace(LAYER, std=30.0)}),  # features of a pretrained VGG
        observe(STUCK, dropout={"drop": 0.8}),
    ],
)
def test_oddities_are_no_cause(observation):
    assert kinds(observation) == ["loss_not_falling"]


@pytest.mark.parametrize(
    "observation",
    [
        observe([0.3] * 120),  # pretrained: it begins far below chance
        observe(STUCK, resumed=True),
        observe(STUCK, alone=False),  # a GAN
        observe(STUCK, final=False, epochs=0),  # the first epoch goes on
        observe(STUCK, final=False, epochs=1),  # no cause was seen, and 1,000 steps are not over
        observe([-0.5 - 0.01 * step for step in range(120)]),  # a likelihood of densities
    ],
)
def test_a_loss_that_need_not_fall_is_no_trouble(observation):
    assert kinds(observation) == []


def test_shrinking_weights_without_decay_are_no_penalty():
    shrunk = observe(STUCK)
    last = shrunk.looks[-1]
    smaller = {name: replace(each, weight_norm=1.0) for name, each in last.gradients.items()}
    shrunk.looks[-1] = replace(last, gradients=smaller)
    assert kinds(shrunk) == ["loss_not_falling"]
    assert kinds(replace(shrunk, weight_decay=0.1)) == ["over_regularised"]


def test_a_long_first_epoch_need_not_be_over():
    assert kinds(observe([2.3] * 1000, final=False, epochs=0)) == ["loss_not_falling"]


def test_a_gan_with_nan_is_trouble():
    assert kinds(observe([2.3] * 60 + [math.nan] * 60, alone=False)) == ["non_finite"]


def test_the_advice_names_what_holds_the_updates_down():
    tiny = {"a.weight": replace(WEIGHT, update_norm=1e-7)}

    def advice(**facts):
        return judge(observe(STUCK, weights=tiny, **facts))[0].advice

    assert "to `lr=" in advice()
    assert "schedule lowers" in advice(rates=lambda step: 0.1 * 0.5**step)
    assert "still warms up" in advice(rates=lambda step: 1e-6 * (step + 1))
    assert "eps=1e-8" in advice(eps=1.0)
    assert "gradient_clip_val" in advice(clip=1e-4)
    assert "without the factor" in advice(loss_factor=1e-6)


def test_the_suggested_rate_would_make_a_good_update():
    (finding,) = judge(observe(STUCK, weights={"a.weight": replace(WEIGHT, update_norm=5e-8)}))
    assert (
        finding.advice == "Raise the learning rate 500000 times, to `lr=50000`, or train longer."
    )  # 1e-8 of the weights, to 5e-3


def test_certain_findings_come_first_and_advice_last():
    not_trained = Finding.of("parameters_not_trained", "head", 1.0, "in no optimizer", "")
    advice = Finding.of("input_not_centred", "batch[0]", 1.0, "", "")
    dead = Finding.of("dead_units", "a", 1.0, "", "")
    symptom = Finding.of("loss_not_falling", "the loss", 1.0, "", "")
    assert ranked([advice, not_trained], [dead]) == [not_trained, dead, advice]
    assert ranked([not_trained], [symptom]) == [not_trained]
    zero = replace(not_trained, message="had gradients of exactly zero")
    assert ranked([zero], [dead]) == [dead, zero]


def test_hopeless_is_a_cause_and_a_loss_that_has_not_fallen():
    stuck, slow = observe(STUCK, spread=0.0), observe([2.3] * 60 + [1.5] * 60, spread=0.0)
    assert is_hopeless(stuck, judge(stuck))
    assert kinds(slow)
    assert not is_hopeless(slow, judge(slow))
    assert not is_hopeless(stuck, [])
