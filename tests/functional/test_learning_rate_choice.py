"""The choice is good, its double is stable, and noise does not count as a drop."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_trainingkit.functional.learning_rate_choice import (
    RateTrial,
    blown_up,
    candidates_from_sweep,
    choose_rate,
    double_is_stable,
    good_trials,
    loses,
    moving_average,
    next_refinement,
    sweep_rates,
)

ITERATIONS = 100


def simulate(rate, cliff, seed=0, noise=0.05, start=2.3, iterations=ITERATIONS):
    """A loss that falls towards a floor at a speed of the rate. Above the cliff it stays high or breaks."""
    draws = np.random.default_rng(seed).normal(0, noise, iterations)
    steps = np.arange(iterations)
    if rate > 5 * cliff:
        losses = start * 1.5 ** steps[: iterations // 2]
        return RateTrial(rate, (*losses, math.nan), start, False, iterations)
    level = start if rate > cliff else 0.2 + (start - 0.2) * np.exp(-0.3 * steps * rate / cliff)
    return RateTrial(rate, tuple(level + draws), start, True, iterations)


@settings(max_examples=40, deadline=None)
@given(cliff=st.floats(-4, 1).map(lambda power: 10**power), seed=st.integers(0, 1000))
def test_a_search_ends_below_the_cliff_and_near_the_best_drop(cliff, seed):
    trials = [simulate(cliff * factor, cliff, seed) for factor in (3.0, 0.95, 0.3, 0.1, 0.03)]
    for _ in range(2):
        rate = next_refinement(trials)
        if rate is not None:
            trials.append(simulate(rate, cliff, seed))
    chosen = choose_rate(trials)
    assert chosen <= cliff / 2 * 1.05
    best = max(each.drop for each in trials)
    assert simulate(chosen, cliff, seed).drop > 0.75 * best
    assert double_is_stable(chosen, trials)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(0.01, 2))
def test_good_trials_are_near_the_best_one(seed, noise):
    trials = [simulate(rate, 1.0, seed, noise) for rate in (0.01, 0.05, 0.2, 0.8, 3.0, 30.0)]
    good = good_trials(trials)
    assume(good)
    best = max(
        (each for each in trials if each.finite), key=lambda each: np.mean(each.start - np.array(each.losses[-30:]))
    )
    assert best in good
    assert all(each.drop >= 0.75 * best.drop for each in good)
    assert [each.rate for each in good] == sorted(each.rate for each in good)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_same_batches_show_a_small_difference_that_other_batches_would_hide(seed):
    noise = np.random.default_rng(seed).normal(0, 1.0, ITERATIONS)
    steps = np.arange(ITERATIONS)
    slow, fast = (
        RateTrial(rate, tuple(20 - speed * steps + noise), 20.0, True, ITERATIONS)
        for rate, speed in ((0.01, 0.1), (0.1, 0.12))
    )
    assert good_trials([slow, fast]) == [fast]


def test_noise_is_no_drop():
    draw, chosen = np.random.default_rng(0), 0
    for _ in range(200):
        first = draw.normal(2, 1, 10)
        flat = [
            RateTrial(10.0**-power, tuple(draw.normal(2, 1, 100)), first.mean(), True, 100, first.std(ddof=1) / 10**0.5)
            for power in range(6)
        ]
        chosen += choose_rate(flat) is not None
    assert chosen <= 6  # 3 %
    assert next_refinement(flat) is None


def test_a_broken_or_unfinished_trial_is_never_chosen():
    broken = RateTrial(1.0, (2.0,) * 50 + (0.1,) * 49 + (math.nan,), 2.0, False, 100)
    early = RateTrial(0.5, (2.0,) * 20 + (0.0,) * 30, 2.0, True, 100)
    assert choose_rate([broken, early]) is None
    assert choose_rate([broken, early, simulate(0.1, 0.3, start=2.0)]) == 0.1


def test_half_of_the_largest_stable_rate_where_the_cliff_is_near():
    trials = [simulate(rate, 0.1) for rate in (0.09, 0.18, 0.03)]
    assert double_is_stable(0.09, trials) is False
    assert choose_rate([trials[0], trials[1]]) == 0.045


def test_candidates_end_at_the_lowest_loss_of_the_sweep():
    rates = sweep_rates(1e-5, 1.0, 90)
    curve = [(rate, 2.3 - 2 * rate / (rate + 0.003) + (1000 * (rate - 0.1) if rate > 0.1 else 0)) for rate in rates]
    found = candidates_from_sweep(curve, 2.3, 0.01)
    assert 0.03 < found[0] < 0.13
    assert [round(math.log10(first / second), 1) for first, second in pairwise(found)] == [0.5] * 4
    broken = [(rate, loss if rate < 0.01 else math.nan) for rate, loss in curve]
    assert 0.002 < candidates_from_sweep(broken, 2.3, 0.01)[0] <= 0.01


def test_candidates_without_a_drop_lie_wide_apart():
    curve = list(zip(sweep_rates(1e-5, 1, 90), np.random.default_rng(0).normal(2, 0.1, 90), strict=True))
    assert candidates_from_sweep(curve, 2.0, 0.03) == [1.0, 0.1, 0.01, 0.001, 0.0001]
    assert candidates_from_sweep([(1e-5, math.nan)], 2.0, 0.03) == [1e-5, 1e-6, 1e-7, 1e-8, 1e-9]


def test_what_stops_early():
    fast, slow = simulate(0.5, 1.0), simulate(0.02, 1.0, iterations=50)
    assert loses(slow, fast)
    assert not loses(simulate(0.45, 1.0, iterations=50), fast)
    assert blown_up([2.0, math.inf], 2.0)
    assert blown_up([2.0] * 10 + [50.0] * 5, 2.0)
    assert not blown_up([2.0] * 10 + [3.0] * 5, 2.0)
    assert not blown_up([-5.0] * 10 + [-4.0] * 5, 1.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_moving_average(values):
    expected = [np.mean(values[max(0, place - 5) : place + 6]) for place in range(len(values))]
    assert moving_average(values) == pytest.approx(np.array(expected), abs=1e-9)
