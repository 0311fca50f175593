import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional import add_penalty_gradient_, penalty_value, proximal_step_

strengths = st.floats(0, 2)
SHAPES = [(3, 2), (5,), (), (2, 1, 3, 3), (0, 4)]


def weights(seed, zeros=True):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    if zeros:
        made[0][0, 0] = 0.0
    return made


def formula(tensors, l1, l2):
    return sum((l1 * w.abs() + l2 * w**2).sum() for w in tensors)


@given(l1=strengths, l2=strengths, seed=st.integers(0, 99))
def test_value_and_gradient_are_those_of_autograd_on_the_formula(l1, l2, seed):
    tensors = [w.requires_grad_() for w in weights(seed)]
    expected = formula(tensors, l1, l2)
    torch.testing.assert_close(penalty_value(tensors, l1, l2), expected)
    expected.backward()
    before = [torch.ones_like(w) for w in tensors]
    add_penalty_gradient_(before, tensors, l1, l2)
    for changed, w in zip(before, tensors, strict=True):
        torch.testing.assert_close(changed, 1 + w.grad)


@given(l1=st.floats(0.01, 2), l2=st.floats(0.01, 2))
def test_the_value_can_be_added_to_a_loss(l1, l2):
    tensors, twins = ([w.requires_grad_() for w in weights(0, zeros=False)] for _ in range(2))
    penalty_value(tensors, l1, l2).backward()
    formula(twins, l1, l2).backward()
    for w, twin in zip(tensors, twins, strict=True):
        torch.testing.assert_close(w.grad, twin.grad)


@given(l1=strengths, l2=strengths, rate=st.floats(0, 1))
def test_the_proximal_step_minimises_its_definition_on_a_fine_grid(l1, l2, rate):
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = start.clone()
    proximal_step_([found], rate, l1, l2)
    grid = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    cost = (grid - start[:, None]) ** 2 / 2 + rate * (l1 * grid.abs() + l2 * grid**2)
    torch.testing.assert_close(found, grid[cost.argmin(1)], atol=6e-4, rtol=0)
    within = start.abs() < rate * l1
    assert (found[within] == 0).all()


def test_low_precision_is_summed_in_float32():
    weight = torch.full((1000, 100), 0.01, dtype=torch.bfloat16)
    expected = weight.double().abs().sum().item() + weight.double().square().sum().item()
    value = penalty_value([weight], 1, 1)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("call", [penalty_value, lambda w, l1, l2: add_penalty_gradient_(w, w, l1, l2)])
@pytest.mark.parametrize("strength", [(-0.1, 0), (0, -1e-9), (float("nan"), 0), (0, float("inf"))])
def test_bad_strengths(call, strength):
    with pytest.raises(ValueError, match=r"`l[12]` must be .*at least 0"):
        call([torch.ones(1)], *strength)


def test_a_negative_rate_and_no_parameters():
    with pytest.raises(ValueError, match="`rate` must be at least 0, got -1"):
        proximal_step_([torch.ones(1)], -1, 1)
    with pytest.raises(ValueError, match="at least one tensor"):
        penalty_value([], 1)
    assert penalty_value([torch.ones(2)]) == 0
