import math
import random

import pytest

from lightning_trainingkit.tuning.searches.edge_verdict import edges_of
from lightning_trainingkit.tuning.searches.importance import importances
from lightning_trainingkit.tuning.searches.playbook import playbook
from lightning_trainingkit.tuning.trials.domains import Choices, Range
from lightning_trainingkit.tuning.trials.space import Space
from tests.tuning.searches.made_search import SPACE, result, results


def lines(found, mode="min", space=SPACE):
    return {each.step: each for each in playbook(space, found, mode, "val/loss")}


def valley(at, slope=1.0):
    """A loss with its minimum at a rate."""
    return lambda point: 1 + slope * (math.log10(point["lr"]) - math.log10(at)) ** 2


def test_a_valley_inside_of_the_space_passes():
    found = lines(results(valley(3e-3), 32))
    assert found["edges"].line == "pass. The best `lr` and `drop` lie inside of the space."
    assert found["samples"].verdict == "pass"
    assert "`lr` is best at 0.000562 to 0.00316" in found["isolation"].message
    assert "`drop` made no difference" in found["isolation"].message
    assert "`lr` 9" in found["importance"].message
    assert "`drop` may stay fixed" in found["importance"].advice
    assert "noise" not in found


@pytest.mark.parametrize(("at", "said"), [(1.0, "upper end 0.1"), (1e-6, "lower end 0.0001")])
def test_a_best_value_at_an_edge_is_warned_of(at, said):
    edge = lines(results(valley(at)))["edges"]
    assert edge.verdict == "warn"
    assert said in edge.message
    assert "`drop`" not in edge.message
    assert edge.advice.startswith("Search `lr` ")


def test_a_score_is_better_when_it_is_larger():
    scores = results(lambda point: -valley(1.0)(point))
    assert lines(scores, "max")["edges"].verdict == "warn"
    assert lines(scores, "min")["edges"].verdict == "warn"  # at the other end
    assert "lower end" in lines(scores, "min")["edges"].message


def test_hyperparameters_without_an_effect_are_seldom_at_an_edge():
    alarms = 0
    for seed in range(50):
        noise = random.Random(seed)
        done = sorted(results(lambda point, noise=noise: noise.random(), seed=seed), key=lambda each: each.value)
        alarms += bool(edges_of(SPACE, done, "min"))
    assert alarms <= 10  # two hyperparameters; 13 % of 300 other seeds


def test_few_trials_with_one_lucky_value_are_not_enough():
    few = results(lambda point: 1 + point["drop"], 5)
    few[0] = result(0, few[0].params, 0.2)
    found = lines(few)["samples"]
    assert found.verdict == "warn"
    assert "With 2 instead of 5 configurations" in found.message
    assert "twice as many trials" in found.advice


def test_pruned_trials_count_and_a_repeated_configuration_counts_once():
    random.seed(0)
    done = [result(n, {"lr": 1e-3, "drop": n / 10}, random.uniform(0.1, 1) ** 3) for n in range(5)]
    again = [result(16 + n, done[2].params, done[2].value) for n in range(3)]
    pruned = [result(5 + n, {"lr": 1e-2, "drop": n / 30}, 2.0, "pruned") for n in range(11)]
    found = lines([*done, *pruned, *again])["samples"]
    assert "With 8 instead of 16 configurations" in found.message
    assert found.verdict == "warn"
    assert "twice as many trials" in found.advice


def test_diverged_trials_are_counted_and_their_rates_named():
    mixed = [
        result(n, each.params, each.value)
        if each.params["lr"] < 1e-2
        else result(n, each.params, None, "pruned", diverged=True)
        for n, each in enumerate(results(valley(1e-3)))
    ]
    found = lines(mixed)["divergence"]
    assert found.verdict == "warn"
    assert "All of them have `lr` of at least 0.01" in found.message
    assert found.advice == "Lower the upper end of `lr`."


def test_failed_trials_are_named_with_their_error():
    some = results(valley(1e-3))
    some[3] = result(3, some[3].params, None, "failed")
    found = lines(some)["failures"]
    assert found.line.startswith("warn. 1 of 16 trials failed. Trial 3, the first: ValueError: nothing works")
    only = lines([result(0, some[0].params, None, "failed")])
    assert only["failures"].verdict == "fail"
    assert "edges" not in only  # nothing to answer


def test_repeats_tell_the_noise():
    some = results(valley(1e-3))
    again = [result(20 + n, some[2].params, some[2].value + 0.1 * n) for n in (-1, 1)]
    found = lines([*some, *again])["noise"]
    assert found.value == pytest.approx(0.1)
    assert "(3 trainings)" in found.message


def test_one_diverging_loss_does_not_take_all_the_importance():
    some = results(lambda point: valley(1e-3)(point))
    some[5] = result(5, some[5].params, 1e9)
    assert importances(SPACE, some, "min")["lr"] > 0.8


def test_one_configuration_says_nothing_about_the_importance():
    space = Space({"width": Choices([8, 64]), "act": Choices(["relu", "gelu"])})
    done = [result(n, {"width": 64, "act": "relu"}, 0.3 + 0.01 * n) for n in range(9)]
    pruned = [result(9 + n, {"width": 8, "act": "gelu"}, 2.0, "pruned") for n in range(4)]
    assert "importance" not in lines([*done, *pruned], space=space)
    assert importances(space, done, "min") == {}


def test_a_space_of_choices():
    space = Space({"act": Choices(["relu", "gelu"]), "wide": Choices([True, False])})
    found = lines(results(lambda point: float(point["act"] == "relu"), 8, space), space=space)
    assert found["edges"].message == "The space has choices alone."
    assert "`act` is best at gelu" in found["isolation"].message
    assert lines(results(lambda _: 1.0, 8, Space({"lr": Range(1, 2)})), space=Space({"lr": Range(1, 2)})).keys() == {
        *("edges", "samples", "isolation", "divergence")
    }
