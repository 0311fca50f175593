import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical

from lightning_trainingkit.functional.uncertainty import mutual_information, predictive_entropy


def slow_entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def slow_information(passes, weights):
    mean = [sum(w * p for w, p in zip(weights, of_class, strict=True)) for of_class in zip(*passes, strict=True)]
    return slow_entropy(mean) - sum(w * slow_entropy(p) for w, p in zip(weights, passes, strict=True))


def random_passes(passes, n, classes, seed):
    """Probabilities of which some are exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(passes, n, classes, generator=generator, dtype=torch.float64)
    p = p * (torch.rand(p.shape, generator=generator) > 0.3)
    p[..., 0] += 1e-3
    return p / p.sum(2, keepdim=True), generator


sizes = {"passes": st.integers(1, 5), "n": st.integers(1, 6), "classes": st.integers(2, 7), "seed": st.integers(0, 999)}


@given(**sizes)
def test_equals_the_sums_written_out(passes, n, classes, seed):
    p, generator = random_passes(passes, n, classes, seed)
    weights = torch.rand(passes, generator=generator, dtype=torch.float64)
    weights /= weights.sum()
    entropy, information = predictive_entropy(p[0].log()), mutual_information(p.log(), weights)
    for i in range(n):
        assert entropy[i].item() == pytest.approx(slow_entropy(p[0, i].tolist()), abs=1e-9)
        expected = slow_information(p[:, i].tolist(), weights.tolist())
        assert information[i].item() == pytest.approx(expected, abs=1e-9)


@given(**sizes)
def test_bounds_in_float32(passes, n, classes, seed):
    log_p = random_passes(passes, n, classes, seed)[0].float().log()
    information = mutual_information(log_p)
    assert (information >= 0).all()
    assert (information <= math.log(passes) + 1e-5).all()
    assert (information <= predictive_entropy(log_p.exp().mean(0).log()) + 1e-5).all()


def test_equals_torch_distributions():
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predictive_entropy(logits), Categorical(logits=logits).entropy())
    torch.testing.assert_close(predictive_entropy(logits.log_softmax(1)), Categorical(logits=logits).entropy())


def test_passes_that_agree_say_nothing():
    log_p = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).log_softmax(2).expand(7, 4, 3)
    assert mutual_information(log_p).abs().max() < 1e-6


def test_passes_that_are_sure_of_different_classes_say_all():
    log_p = torch.eye(4)[:, None].log()  # 4 passes, 1 sample, 4 classes
    assert mutual_information(log_p).item() == pytest.approx(math.log(4))
    assert mutual_information(log_p, torch.tensor([0.0, 1.0, 0.0, 0.0])).item() == 0
    assert predictive_entropy(log_p[0]).item() == 0


def test_half_precision_is_summed_in_single():
    log_p = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert predictive_entropy(log_p[0]).dtype == mutual_information(log_p).dtype == torch.float32


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`log_probabilities` must have shape \(K, N, C\), got \(4, 3\)"):
        mutual_information(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="`weights` must be 2 numbers"):
        mutual_information(torch.zeros(2, 4, 3), torch.ones(1))
    with pytest.raises(ValueError, match="`weights` must be positive or 0 and sum to 1"):
        mutual_information(torch.zeros(2, 4, 3), torch.ones(2))
