import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from lightning_trainingkit.functional import resampled_mean

scores = st.lists(st.floats(-100, 100), min_size=2, max_size=20).filter(lambda values: np.std(values) > 1e-3)


@given(scores, st.integers(2, 10))
def test_it_is_scipys_t_test_with_the_larger_error(values, folds):
    found = resampled_mean(values, 1 / folds)
    usual = ttest_1samp(values, 0)
    low, high = usual.confidence_interval(0.95)
    wider = math.sqrt(1 + len(values) / (folds - 1))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.half == pytest.approx((high - low) / 2 * wider)
    assert found.p_value >= usual.pvalue - 1e-12


@given(scores, st.floats(-5, 5), st.floats(0.1, 10))
def test_shift_and_scale(values, shift, scale):
    one, other = resampled_mean(values, 0.2), resampled_mean([scale * each + shift for each in values], 0.2)
    assert other.half == pytest.approx(scale * one.half, rel=1e-6)
    assert other.mean == pytest.approx(scale * one.mean + shift, abs=1e-6)


def test_the_p_value_is_0_05_where_the_interval_ends_at_0():
    half = resampled_mean([1.0, 2.0, 4.0], 1 / 3).half
    shifted = resampled_mean([value - 7 / 3 + half for value in (1.0, 2.0, 4.0)], 1 / 3)
    assert (shifted.low, shifted.p_value) == pytest.approx((0, 0.05), abs=1e-9)


def test_it_holds_the_truth_more_often_than_the_usual_interval_where_training_sets_overlap():
    """The score of a fold is a common part of all folds, from the shared examples, and one of its own."""
    generator = np.random.default_rng(0)
    inside = {"usual": 0, "corrected": 0}
    for _ in range(400):
        values = generator.normal() * math.sqrt(1 / 4) + generator.normal(size=5)
        found, usual = resampled_mean(values, 1 / 5), ttest_1samp(values, 0).confidence_interval(0.95)
        inside["corrected"] += found.low <= 0 <= found.high
        inside["usual"] += usual.low <= 0 <= usual.high
    assert inside["corrected"] / 400 == pytest.approx(0.95, abs=0.03)
    assert inside["usual"] / 400 < 0.9


def test_equal_scores():
    assert resampled_mean([0.5, 0.5], 0.5).half == 0
    assert resampled_mean([0.5, 0.5], 0.5).p_value == 0
    assert resampled_mean([0.0, 0.0], 0.5).p_value == 1


@pytest.mark.parametrize(
    ("values", "share", "said"),
    [
        ([1.0], 0.2, "`values` must hold at least two scores, got 1"),
        ([1.0, math.nan], 0.2, "`values` must be finite"),
        ([1.0, 2.0], 1.0, "`test_share` must be"),
    ],
)
def test_bad_input(values, share, said):
    with pytest.raises(ValueError, match=said):
        resampled_mean(values, share)
