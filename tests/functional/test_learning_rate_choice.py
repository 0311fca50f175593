"""The choice is good, its double is stable, and noise does not count as a drop."""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_trainingkit.functional.learning_rate_choice import (
    choose_rate,
    good_trials,
    largest_stable,
    loses,
    next_refinement,
)
from lightning_trainingkit.functional.rate_trial import RateTrial

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
    assert chosen <= cliff / 2
    assert simulate(2 * chosen, cliff, seed).drop > 0.75 * max(each.drop for each in trials)
    assert 2 * chosen <= 1.05 * largest_stable(trials) < 1.05 * cliff


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
    assert choose_rate([broken, early, simulate(0.1, 0.3, start=2.0)]) == 0.05


def test_half_of_the_largest_stable_rate_where_the_cliff_is_near():
    trials = [simulate(rate, 0.1) for rate in (0.09, 0.18, 0.045)]
    assert largest_stable(trials) == 0.09
    assert choose_rate(trials) == 0.045
    lucky = RateTrial(0.4, trials[0].losses, trials[0].start, True, ITERATIONS)  # above a rate that is not stable
    assert choose_rate([*trials, lucky]) == 0.045


def test_a_trial_that_is_far_behind_loses():
    fast, slow = simulate(0.5, 1.0), simulate(0.02, 1.0, iterations=50)
    assert loses(slow, fast)
    assert not loses(simulate(0.45, 1.0, iterations=50), fast)
