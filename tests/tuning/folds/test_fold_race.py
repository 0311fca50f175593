import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from lightning_trainingkit.tuning.folds.fold_race import run_race


def table(values):
    return {(c, f): value for c, row in enumerate(values) for f, value in enumerate(row)}


def run(values, mode="min", prune=True):
    """The race with these values, round after round, as workers see it."""
    known, folds = table(values), len(values[0])
    seen = {}
    while True:
        race = run_race(seen, len(values), folds, mode=mode, prune=prune)
        assert race.owed[: len(seen)] == list(seen)  # the order of the tickets never changes
        if race.is_over:
            return race
        seen |= {key: known[key] for key in race.owed}


@given(
    st.integers(2, 6).flatmap(
        lambda folds: st.lists(st.lists(st.floats(-9, 9), min_size=folds, max_size=folds), min_size=2, max_size=5)
    )
)
def test_nothing_is_pruned_before_the_fourth_fold(values):
    race = run(values)
    number, folds = len(values), len(values[0])
    assert len(race.owed) >= min(folds, 4) * number + max(0, folds - 4)  # with 5 folds, the fifth alone can be saved
    assert all(had >= 4 and why == "pruned" for had, why in race.out.values())


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(5))
def test_losers_are_those_of_scipys_test_against_the_best_so_far(mode, seed):
    values = np.random.default_rng(seed).normal(size=(6, 10)) + np.arange(6)[:, None] * 0.3
    race = run(values.tolist(), mode)
    racing = set(range(6))
    for had in range(4, 10):
        means = {c: values[c, :had].mean() for c in racing}
        best = (min if mode == "min" else max)(means, key=means.get)
        alternative = "greater" if mode == "min" else "less"
        lost = {
            c
            for c in racing - {best}
            if wilcoxon(values[c, :had] - values[best, :had], alternative=alternative).pvalue < 0.1
        }
        assert {c for c, (folds, _) in race.out.items() if folds == had} == lost
        racing -= lost
    assert racing


def test_the_fifth_fold_is_all_that_pruning_saves_with_five():
    race = run([[c + 0.1 * f for f in range(5)] for c in range(3)])
    assert len(race.owed) == 4 * 3 + 1
    assert race.out == {1: (4, "pruned"), 2: (4, "pruned")}


def test_a_configuration_that_fails_leaves_at_once_and_others_go_on():
    values = [[0.0] * 5, [1.0, None, 1.0, 1.0, 1.0], [None] * 5]
    race = run(values)
    assert race.out == {1: (2, "failed"), 2: (1, "failed")}
    assert len(race.owed) == 5 + 2 + 1


def test_without_pruning_all_is_owed_at_once():
    race = run_race({}, 2, 3, prune=False)
    assert (len(race.owed), race.is_over) == (6, False)
    assert run([[0.0, 0.0], [9.0, None]], prune=False).out == {1: (2, "failed")}


def test_equal_configurations_all_stay():
    assert run([[0.5] * 8] * 3).out == {}
