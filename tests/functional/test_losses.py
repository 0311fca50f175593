import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import multi_margin_loss

from lightning_trainingkit.functional.losses import multiclass_hinge


def slow_hinge(logits, target):
    total = 0.0
    for scores, y in zip(logits.tolist(), target.tolist(), strict=True):
        total += sum(max(0.0, s - scores[y] + 1) for j, s in enumerate(scores) if j != y)
    return total / len(logits)


@given(n=st.integers(1, 7), classes=st.integers(2, 9), seed=st.integers(0, 999))
def test_equals_the_double_sum_of_the_lecture(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (n,), generator=generator)
    assert multiclass_hinge(logits, target).item() == pytest.approx(slow_hinge(logits, target))
    assert multiclass_hinge(logits, target).item() == pytest.approx(classes * multi_margin_loss(logits, target).item())


def test_is_classes_minus_one_at_zero_scores_and_zero_with_a_margin():
    target = torch.tensor([1, 0])
    assert multiclass_hinge(torch.zeros(2, 10), target).item() == pytest.approx(9)
    assert multiclass_hinge(torch.nn.functional.one_hot(target, 10).float(), target).item() == 0


def test_gradient():
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: multiclass_hinge(s, torch.tensor([0, 4, 2, 2])), logits)


def test_half_precision_logits_are_summed_in_single():
    loss = multiclass_hinge(torch.zeros(2, 10, dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert loss.dtype == torch.float32
