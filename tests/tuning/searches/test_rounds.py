import math

import pytest

from lightning_trainingkit.tuning.searches.budget import Budget
from lightning_trainingkit.tuning.searches.earlier_results import add_earlier
from lightning_trainingkit.tuning.searches.next_space import widen
from lightning_trainingkit.tuning.searches.rounds import candidates, gained
from lightning_trainingkit.tuning.trials.domains import Choices, Range
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from tests.tuning.searches.made_search import result

SPACE = Space({"lr": Range(1e-3, 1e-1, log=True), "layers": Range(2, 4, integer=True), "act": Choices(["a", "b"])})


def trials(*values):
    return [result(number, {"lr": rate}, value) for number, (rate, value) in enumerate(values)]


def test_one_lucky_training_does_not_win_against_several_good_ones():
    found = candidates(trials((1, 0.28), (2, 0.3), (2, 0.36), (2, 0.24), (3, 0.4), (3, 0.7), (4, 0.8), (4, 0.4)), "min")
    assert found[0].params == {"lr": 2}
    assert found[0].values == (0.3, 0.36, 0.24)


@pytest.mark.parametrize("bad", [[], [(9, 30.0)], [(9, 30.0), (10, 1e6)]])
def test_a_bad_trial_does_not_let_the_lucky_one_win(bad):
    good = [(1, each) for each in (0.46, 0.47, 0.48, 0.47)]
    others = [(3, 0.50), (4, 0.52), (5, 0.55), (6, 0.49), (7, 0.53), (8, 0.45), (8, 0.55)]
    assert candidates(trials(*good, (2, 0.40), *others, *bad), "min")[0].params == {"lr": 1}


def test_without_repeats_the_best_value_wins():
    assert candidates(trials((1, 0.5), (2, 0.7), (3, 0.6)), "max")[0].params == {"lr": 2}
    assert candidates([result(0, {"lr": 1}, None, "failed")], "min") == []


def test_a_round_gains_if_its_new_configurations_are_better_than_the_noise():
    first = trials((1, 0.5), (2, 0.6), (3, 0.7), (4, 0.8))
    assert gained([first, trials((1, 0.51), (5, 0.3), (6, 0.6))], "min") == ""
    assert "No new configuration of round 2 was better" in gained([first, trials((1, 0.51), (5, 0.6))], "min")
    assert "Round 2 gained" in gained([first, trials((1, 0.7), (2, 0.4), (5, 0.36))], "min")
    assert "no new configuration was trained to its end" in gained([first, trials((1, 0.51))], "min")
    assert gained([[], trials((1, 0.51))], "min") == ""
    said = gained([trials((1, 0.5), (2, 0.7)), trials((3, 0.499), (4, 0.9))], "min")
    assert said.endswith("above 0.002, a hundredth of the way from the best value to the median.")


def test_ranges_widen_at_their_edge_and_not_beyond_the_outer_space():
    wide = widen(SPACE, {"lr": "high", "layers": "low"})
    assert (wide["lr"].low, wide["lr"].high) == (1e-3, 1.0)
    assert (wide["layers"].low, wide["layers"].high) == (1, 4)
    assert wide["act"] == SPACE["act"]
    assert widen(SPACE, {"lr": "low"}, Space({"lr": Range(5e-4, 1, log=True)}))["lr"].low == 5e-4
    assert widen(Space({"drop": Range(0.1, 0.5)}), {"drop": "low"})["drop"].low == 0.0
    assert widen(SPACE, {}).version == SPACE.version


def test_a_budget_counts_trials_and_epochs():
    budget = Budget(10, 50, None)
    budget.used_trials, budget.used_epochs = 7, 45
    assert budget.left_trials(8) == 3
    assert budget.spent(5) == ""
    assert budget.spent(6) == "The budget of 50 epochs is used: 45 were trained."
    budget.used_trials = 10
    assert budget.spent() == "The budget of 10 trials is used."
    assert Budget(None, None, None).left_trials(8) == 8
    for name, value in (("max_trials", 0), ("max_epochs", 0), ("max_hours", -1)):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            Budget(**{"trials": None, "epochs": None, "hours": None, name[4:]: value})


def test_the_sampler_knows_the_completed_and_the_pruned_trials_of_earlier_rounds():
    study = Study(None, "second round", SPACE, 1)
    point = {"lr": 0.01, "layers": 2, "act": "a"}
    known = [
        result(0, point, 0.5),
        result(1, point, 0.9, "pruned"),
        result(2, point, None, "failed"),
        Result(3, "pruned", point, None, {1: math.nan}, 1, {"diverged": True}, "", 3),
    ]
    add_earlier(study, SPACE, known)
    add_earlier(study, SPACE, known)
    states = [each.state.name for each in study.optuna.trials]
    assert sorted(states) == ["COMPLETE", "PRUNED", "PRUNED", "WAITING"]
    assert study.counts()["total"] == 1
    assert set(study.attempts.claim().params) == set(SPACE)
    assert study.results() == []
