"""Each formula against numpy or autograd, which do not know it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from lightning_trainingkit.functional import statistics

NUMBERS = st.floats(-100, 100, width=32)
VALUES = arrays.arrays(np.float64, st.integers(1, 40), elements=NUMBERS)
RANGES = st.tuples(NUMBERS, NUMBERS).filter(lambda ends: ends[1] - ends[0] > 1e-3)


@pytest.mark.parametrize("name", statistics.SATURATION)
@given(z=arrays.arrays(np.float64, 20, elements=st.floats(-30, 30)))
def test_saturated_outputs_have_a_derivative_below_5_percent_of_the_largest(name, z):
    z = torch.from_numpy(z).requires_grad_()
    y = getattr(functional, name)(z)
    (derivative,) = torch.autograd.grad(y.sum(), z)
    largest = {"sigmoid": 1 / 4, "hardsigmoid": 1 / 6}.get(name, 1)
    clear = (derivative.abs() - 0.05 * largest).abs() > 1e-6
    assert torch.equal(statistics.saturated(name, y)[clear], (derivative.abs() < 0.05 * largest)[clear])
    torch.testing.assert_close(statistics.derivative_from_output(name, y), derivative.abs(), atol=1e-6, rtol=1e-6)


def test_hardtanh_saturates_at_its_own_bounds():
    y = functional.hardtanh(torch.tensor([-5.0, -1.0, 0.0, 2.0, 3.0]), -2.0, 2.0)
    assert statistics.saturated("hardtanh", y, -2.0, 2.0).tolist() == [True, False, False, True, True]


def test_an_activation_that_does_not_saturate_is_refused():
    with pytest.raises(ValueError, match=r"must be one of sigmoid, .* got 'relu'"):
        statistics.saturated("relu", torch.zeros(1))


@given(parts=st.lists(VALUES, min_size=1, max_size=4))
def test_sums_of_parts_give_mean_and_std_of_the_whole(parts):
    tensors = [torch.from_numpy(part) for part in parts]
    count, total, squares = (
        torch.stack([torch.as_tensor(f(each)).double() for each in tensors]).sum()
        for f in (len, torch.sum, lambda each: each.square().sum())
    )
    mean, std = statistics.mean_and_std(count, total, squares)
    whole = np.concatenate(parts)
    np.testing.assert_allclose([mean, std], [whole.mean(), whole.std()], atol=1e-5)


@given(x=arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=NUMBERS))
def test_spread_between_images_is_that_of_each_unit(x):
    y = torch.from_numpy(x)
    spread = statistics.between_images(torch.full((y.shape[1],), float(len(y))), y.sum(0), y.square().sum(0))
    slow = np.sqrt(np.mean([np.std([image[unit] for image in x]) ** 2 for unit in range(x.shape[1])]))
    np.testing.assert_allclose(spread, slow, atol=1e-5)


@given(alive=arrays.arrays(bool, st.integers(1, 30)))
def test_dead_share_counts_units(alive):
    assert statistics.dead_share(torch.from_numpy(alive)).item() == pytest.approx(
        sum(not each for each in alive) / len(alive)
    )


@given(values=VALUES, ends=RANGES, bins=st.integers(1, 9))
def test_histogram_is_numpys_of_clipped_values(values, ends, bins):
    low, high = torch.tensor(ends, dtype=torch.float64)
    counts = statistics.histogram(torch.from_numpy(values), bins, low, high)
    edges = statistics.histogram_edges(bins, *ends).numpy()
    at_an_edge = sum(np.abs(values[:, None] - edges).min(1) < 1e-9)
    slow = np.histogram(np.clip(values, *ends), edges)[0]
    assert counts.sum() == len(values)
    assert np.abs(counts.numpy() - slow).sum() <= 2 * at_an_edge


def test_histogram_leaves_out_nan_and_counts_infinity_at_the_ends():
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5])
    ends = torch.tensor([0.0, 1.0])
    assert statistics.histogram(values, 4, *ends).tolist() == [1, 0, 1, 1]


@given(ends=RANGES, counts=arrays.arrays(np.int64, st.integers(1, 9), elements=st.integers(0, 9)))
def test_rebinning_to_the_same_range_changes_nothing_and_to_any_range_keeps_the_total(ends, counts):
    counts, (low, high) = torch.from_numpy(counts), torch.tensor(ends, dtype=torch.float64)
    assert torch.equal(statistics.rebin(counts, low, high, low, high), counts)
    assert statistics.rebin(counts, low, high, low - 3, high + 7).sum() == counts.sum()


@pytest.mark.parametrize(
    "ends", [(0.0, 0.0), (3.0, 3.0), (1e30, 1e30), (1.0, float("inf")), (float("nan"), 1.0), (-1.0, 2.0)]
)
def test_a_range_is_finite_and_has_a_width(ends):
    low, high = statistics.histogram_range(*torch.tensor(ends, dtype=torch.float64))
    assert low < high
    assert torch.isfinite(high - low)
    if ends == (-1.0, 2.0):
        assert (low, high) == ends
