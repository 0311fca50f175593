import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.improvement import is_better, smooth, worst_value

numbers = st.floats(-1e3, 1e3, width=32)


@given(value=numbers, best=numbers, delta=st.floats(0, 10, width=32))
def test_min_and_max_mirror_each_other(value, best, delta):
    value, best = torch.tensor(value), torch.tensor(best)
    assert is_better(value, best, "min", delta) == is_better(-value, -best, "max", delta)
    assert not (is_better(value, best, "min") and is_better(best, value, "min"))


@given(value=numbers, mode=st.sampled_from(["min", "max"]))
def test_any_number_improves_on_the_worst_and_none_on_itself(value, mode):
    value = torch.tensor(value)
    assert is_better(value, worst_value(mode), mode)
    assert not is_better(value, value, mode)


def test_nan_and_infinity_never_improve():
    for value in (math.nan, math.inf, -math.inf):
        for mode in ("min", "max"):
            assert not is_better(torch.tensor(value), torch.tensor(0.0), mode)


@given(values=st.lists(numbers, min_size=1, max_size=20), smoothing=st.floats(0, 0.99))
def test_smooth_is_the_weighted_sum_written_out(values, smoothing):
    average = None
    for value in values:
        average = smooth(average, torch.tensor(value, dtype=torch.float64), smoothing)
    weights = [(1 - smoothing) * smoothing**k for k in range(len(values) - 1)] + [smoothing ** (len(values) - 1)]
    expected = sum(weight * value for weight, value in zip(weights, reversed(values), strict=True))
    assert math.isclose(average.item(), expected, rel_tol=1e-9, abs_tol=1e-6)


def test_smooth_passes_over_nan():
    assert smooth(torch.tensor(1.0), torch.tensor(math.nan), 0.5) == 1.0
