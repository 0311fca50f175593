import optuna
import pytest

from lightning_trainingkit.tuning.searches.samplers import choose_pruner, choose_sampling
from lightning_trainingkit.tuning.trials.study import Study
from tests.tuning.searches.made_search import SPACE

FIRST = {"lr": 1e-3, "drop": 0.25}


@pytest.mark.parametrize("name", ["quasi-random", "random", "grid"])
def test_points_that_need_no_results_are_known_before_the_search(name):
    sampling = choose_sampling(name, SPACE, 10, 0, [FIRST])
    assert sampling.points[0] == FIRST
    assert len(sampling.points) == 10
    study = Study(None, "x", SPACE, 10, sampler=sampling.sampler, points=sampling.points)
    assert [study.attempts.claim().params for _ in range(10)] == [dict(each) for each in sampling.points]


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_samplers_that_learn_go_to_the_good_points(name):
    sampling = choose_sampling(name, SPACE, 30, 0)
    assert len(sampling.points) == 10
    study = Study(None, "x", SPACE, 30 if name == "tpe" else 14, sampler=sampling.sampler, points=sampling.points)
    far = []
    while (attempt := study.attempts.claim()) is not None:
        far.append(abs(attempt.params["drop"] - 0.1))
        study.attempts.complete(attempt, far[-1])
    assert sum(far[10:]) / len(far[10:]) < 0.5 * sum(far[:10]) / 10


def test_a_sampler_of_optuna_is_taken_as_it_is():
    sampler = optuna.samplers.RandomSampler(seed=0)
    assert choose_sampling(sampler, SPACE, 4, 0).sampler is sampler


def test_unknown_samplers_and_pruners():
    with pytest.raises(ValueError, match="`sampler` must be one of 'quasi-random', 'random', 'grid', 'tpe'"):
        choose_sampling("bayes", SPACE, 4, 0)
    with pytest.raises(TypeError, match="`sampler` must be a name or one of Optuna's samplers, got 3"):
        choose_sampling(3, SPACE, 4, 0)
    grid = optuna.samplers.GridSampler({"lr": [1e-3, 1e-2]})
    for each in (grid, lambda seed: grid):
        with pytest.raises(ValueError, match=r"Sampler, which ends the search itself\. Use sampler='grid'\."):
            choose_sampling(each, SPACE, 4, 0)
    with pytest.raises(ValueError, match="`pruner` must be one of 'median', 'hyperband', 'none', got 'asha'"):
        choose_pruner("asha", 3)
    with pytest.raises(TypeError, match="`pruner` must be a name"):
        choose_pruner(None, 3)


@pytest.mark.parametrize("kept", [False, True])
def test_the_median_stops_a_bad_trial_but_none_that_is_kept(kept):
    bad = {"lr": 0.1, "drop": 0.4}
    study = Study(
        None, "x", SPACE, 5, pruner=choose_pruner("median", 10, [bad] if kept else []), points=[FIRST] * 4 + [bad]
    )
    for value in (1.0, 1.1, 1.2, 1.3):
        attempt = study.attempts.claim()
        assert not any(study.attempts.report(attempt, epoch, value) for epoch in range(1, 11))
        study.attempts.complete(attempt, value)
    last = study.attempts.claim()
    assert [study.attempts.report(last, epoch, 2.0) for epoch in (1, 2, 3)] == [False, not kept, not kept]
