"""A range test narrows the rates to those below its lowest loss."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.range_test import blown_up, candidates_from_sweep, moving_average, sweep_rates


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


def test_a_loss_that_is_lost():
    assert blown_up([2.0, math.inf], 2.0)
    assert blown_up([2.0] * 10 + [50.0] * 5, 2.0)
    assert not blown_up([2.0] * 10 + [3.0] * 5, 2.0)
    assert not blown_up([-5.0] * 10 + [-4.0] * 5, 1.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_moving_average(values):
    expected = [np.mean(values[max(0, place - 5) : place + 6]) for place in range(len(values))]
    assert moving_average(values) == pytest.approx(np.array(expected), abs=1e-9)
