import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.dashboards.read.record import Curve
from lightning_trainingkit.dashboards.read.thinning import thin

NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf, 1e39])
VALUES = st.lists(NUMBERS, min_size=1, max_size=80)


def split(curve):
    drawable = np.abs(curve.values) < 3e38
    return Curve(curve.steps[drawable], curve.values[drawable]), Curve(curve.steps[~drawable], curve.values[~drawable])


@given(VALUES, st.integers(1, 12))
def test_extremes_of_each_share_stay_and_points_are_real(values, shares):
    whole = Curve(np.arange(len(values)) * 3.0, np.array(values))
    found = thin(whole, shares)
    (points, odd), (plain, all_odd) = split(found), split(whole)
    pairs = set(zip(plain.steps, plain.values, strict=True))
    assert set(zip(points.steps, points.values, strict=True)) <= pairs
    assert (np.diff(found.steps) > 0).all()
    np.testing.assert_array_equal(odd.steps, all_odd.steps)
    np.testing.assert_array_equal(odd.values, all_odd.values)
    if found.means is None:
        assert len(points.steps) == len(pairs) <= 2 * shares
        return
    assert len(points.steps) <= 2 * shares + 2
    assert {0, len(pairs) - 1} <= set(np.flatnonzero(np.isin(plain.steps, points.steps)))
    counts = found.means[2].astype(int)
    assert counts.sum() == len(pairs)
    for end, count in zip(np.cumsum(counts), counts, strict=True):
        share, steps = plain.values[end - count : end], plain.steps[end - count : end]
        kept = points.values[np.isin(points.steps, steps)]
        assert (kept.min(), kept.max()) == (share.min(), share.max())
    for number, values in enumerate((plain.steps, plain.values)):
        shares_of = np.split(values, np.cumsum(counts)[:-1])
        np.testing.assert_allclose(found.means[number], [each.mean() for each in shares_of], rtol=1e-9, atol=1e-6)


@given(VALUES, st.integers(1, 30), st.integers(1, 12))
def test_a_thinned_curve_can_be_thinned_again(values, first, then):
    whole = Curve(np.arange(len(values)) * 3.0, np.array(values))
    once = thin(whole, first)
    again, twice = thin(once, first), thin(once, then)
    np.testing.assert_array_equal(again.steps, once.steps)
    np.testing.assert_array_equal(again.values, once.values)
    plain, points = split(whole)[0], split(twice)[0]
    assert len(points.steps) <= 2 * max(then, 1) + 2
    if len(plain.steps):
        for pick in (np.min, np.max, lambda each: each[0], lambda each: each[-1]):
            assert pick(points.values) == pick(plain.values)
    if twice.means is not None:
        assert twice.means.shape[1] <= then
        assert twice.means[2].sum() == len(plain.steps)
        mean = (twice.means[1] * twice.means[2]).sum() / len(plain.steps)
        np.testing.assert_allclose(mean, plain.values.mean(), rtol=1e-9, atol=1e-6)


def test_many_values_that_are_no_numbers_are_chosen_from_evenly():
    found = thin(Curve(np.arange(1000.0), np.full(1000, np.nan)), 10, odd=5)
    assert found.steps.tolist() == [0, 249, 499, 749, 999]
    values = np.full(1000, np.nan)
    values[333], values[444] = 1e39, -1e300
    found = thin(Curve(np.arange(1000.0), values), 10, odd=5)
    assert found.steps.tolist() == [0, 249, 333, 444, 499, 749, 999]
