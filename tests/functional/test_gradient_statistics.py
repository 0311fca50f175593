import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.gradient_statistics import GradientSummary, combine, norms, sign_agreement

values = st.lists(st.sampled_from([-2.0, -1e-3, 0.0, 1e-3, 3.0]), min_size=6, max_size=6)


def slow_sign_agreement(rows):
    means = [abs(sum((x > 0) - (x < 0) for x in row) / len(row)) for row in rows]
    return sum(means) / len(means)


@given(values, st.floats(1e-6, 1e6))
def test_sign_agreement_is_that_of_a_loop_and_ignores_the_scale(row, scale):
    rows = [row[:3], row[3:]]
    found = sign_agreement(torch.tensor(rows) * scale)
    assert found.item() == pytest.approx(slow_sign_agreement(rows), abs=1e-6)
    assert 0 <= found <= 1


def test_sign_agreement_of_a_convolution_counts_all_incoming_weights():
    gradient = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert sign_agreement(gradient).item() == pytest.approx(slow_sign_agreement(gradient.flatten(1).tolist()))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_are_those_of_numpy(kind):
    tensors = [
        torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(kind) for shape in ((3, 4), (700,), ())
    ]
    expected = [np.linalg.norm(each.double().numpy()) for each in tensors]
    assert norms(tensors).tolist() == pytest.approx(expected, rel=1e-5)


def test_norms_of_half_numbers_do_not_overflow():
    assert norms([torch.full((100,), 6e4, dtype=torch.float16)]).item() == pytest.approx(6e5, rel=1e-3)


def summary(elements=4, steps=1, **found):
    known = {"gradient_norm": 1.0, "clipped_norm": None, "weight_norm": None, "update_norm": None}
    known |= {"zeros": 0.0, "sign_agreement": None, "descent": None}
    return GradientSummary(elements, steps, **known | found)


@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=6, max_size=6))
def test_combined_parameters_are_as_one_long_parameter(numbers):
    weights, updates, gradients = (np.array(numbers[i : i + 2]) for i in (0, 2, 4))

    def cosine(update, gradient):
        lengths = np.linalg.norm(update) * np.linalg.norm(gradient)
        return float(-(update * gradient).sum() / lengths) if lengths else 0.0

    def measured(w, u, g):
        named = {"weight_norm": w, "update_norm": u, "gradient_norm": g}
        found = {name: float(np.linalg.norm(each)) for name, each in named.items()}
        return summary(w.size, zeros=float((g == 0).mean()), descent=cosine(u, g), **found)

    found = combine([measured(*parts) for parts in zip(weights, updates, gradients, strict=True)])
    expected = measured(weights, updates, gradients)
    for name in ("elements", "gradient_norm", "weight_norm", "update_norm", "zeros"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9)
    assert found.descent * expected.update_norm * expected.gradient_norm == pytest.approx(
        expected.descent * expected.update_norm * expected.gradient_norm, abs=1e-9
    )


def test_parameters_without_a_gradient_count_in_the_elements_alone():
    found = combine([summary(), summary(elements=6, steps=0, gradient_norm=math.nan, zeros=math.nan)])
    assert (found.elements, found.gradient_norm, found.zeros, found.steps) == (10, 1.0, 0.0, 1)


def test_nothing_has_a_gradient():
    found = combine([summary(steps=0, gradient_norm=math.nan, zeros=math.nan)])
    assert math.isnan(found.gradient_norm)
    assert found.finite
    assert found.update_ratio is None


@pytest.mark.parametrize("name", ["gradient_norm", "clipped_norm", "weight_norm", "update_norm"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_one_bad_number_makes_a_summary_not_finite(name, value):
    assert not summary(**{name: value}).finite
    assert not combine([summary(), summary(**{name: value})]).finite


def test_the_ratio_of_a_parameter_of_zeros():
    assert summary(weight_norm=0.0, update_norm=0.1).update_ratio == math.inf
    assert summary(weight_norm=0.0, update_norm=0.0).update_ratio == 0
    assert summary(weight_norm=2.0, update_norm=0.1).update_ratio == 0.05
