import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lightning_trainingkit.dashboards.page.thinning import thin

from lightning_trainingkit.dashboards.read.record import Curve

NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf, 1e39])


@given(st.lists(NUMBERS, min_size=1, max_size=80), st.integers(1, 12))
def test_extremes_of_each_share_stay_and_points_are_real(values, shares):
    steps, values = np.arange(len(values)) * 3.0, np.array(values)
    found = thin(Curve(steps, values), shares)
    finite = np.abs(values) < 3e38
    pairs = set(zip(steps[finite], values[finite], strict=True))
    assert set(zip(*found.points.tolist(), strict=True)) <= pairs
    assert (np.diff(found.points[0]) > 0).all()
    assert [(step, kind) for step, kind in found.odd] == [
        (step, "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity")
        for step, value in zip(steps[~finite], values[~finite], strict=True)
    ]
    if found.means is None:
        assert len(found.points[0]) == len(pairs) <= 2 * shares
        return
    assert len(found.points[0]) <= 2 * shares
    assert found.counts.sum() == len(pairs)
    ends = np.cumsum(found.counts)
    for number, end in enumerate(ends):
        share = values[finite][end - found.counts[number] : end]
        assert np.isclose(found.means[1, number], share.mean())
        kept = found.points[1][np.isin(found.points[0], steps[finite][end - found.counts[number] : end])]
        assert (kept.min(), kept.max()) == (share.min(), share.max())


def test_many_values_that_are_no_numbers_are_chosen_from_evenly():
    found = thin(Curve(np.arange(1000.0), np.full(1000, np.nan)), 10, odd=5)
    assert [step for step, _ in found.odd] == [0, 249, 499, 749, 999]
    assert found.points.shape == (2, 0)
