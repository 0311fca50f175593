import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import nll_loss

from lightning_trainingkit.functional.averaging import average_passes
from lightning_trainingkit.functional.ensemble_selection import greedy_weights


def slow_loss(chosen, passes, target):
    """Mean over the samples of the negative log of the mean probability of the true class."""
    losses = []
    for i, y in enumerate(target):
        losses.append(-math.log(math.fsum(math.exp(passes[k][i][y]) for k in chosen) / len(chosen)))
    return math.fsum(losses) / len(losses)


def slow_greedy(passes, target, rounds):
    chosen, best = [], (math.inf, [])
    for _ in range(rounds):
        loss, member = min((slow_loss([*chosen, k], passes, target), k) for k in range(len(passes)))
        chosen.append(member)
        if loss < best[0] - 1e-12:
            best = loss, list(chosen)
    return [best[1].count(k) / len(best[1]) for k in range(len(passes))]


def library(members, n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members, n, classes, generator=generator, dtype=torch.float64)
    return logits.log_softmax(2), torch.randint(classes, (n,), generator=generator)


def loss_of(weights, log_p, target):
    return nll_loss(average_passes(log_p, weights.double()), target).item()


@given(members=st.integers(1, 5), n=st.integers(2, 7), classes=st.integers(2, 4), seed=st.integers(0, 9999))
def test_equals_hill_climbing_written_out(members, n, classes, seed):
    log_p, target = library(members, n, classes, seed)
    expected = slow_greedy(log_p.tolist(), target.tolist(), rounds=8)
    assert greedy_weights(log_p, target, rounds=8).tolist() == pytest.approx(expected)


@given(
    members=st.integers(1, 6),
    n=st.integers(1, 30),
    classes=st.integers(2, 5),
    rounds=st.integers(1, 20),
    seed=st.integers(0, 9999),
)
def test_is_never_worse_than_the_best_member(members, n, classes, rounds, seed):
    log_p, target = library(members, n, classes, seed)
    weights = greedy_weights(log_p, target, rounds)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights >= 0).all()
    best_single = min(nll_loss(member, target).item() for member in log_p)
    assert loss_of(weights, log_p, target) <= best_single + 1e-6  # the weights are rounded to float32


@given(seed=st.integers(0, 9999))
def test_more_rounds_are_never_worse(seed):
    log_p, target = library(4, 20, 3, seed)
    losses = [loss_of(greedy_weights(log_p, target, rounds), log_p, target) for rounds in (1, 3, 10, 30)]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(losses))


def test_of_equal_members_the_first_is_chosen():
    log_p, target = library(1, 10, 3, seed=0)
    assert greedy_weights(log_p.expand(4, 10, 3), target).tolist() == [1, 0, 0, 0]


def test_one_round_takes_the_best_single_member():
    log_p, target = library(5, 40, 3, seed=1)
    best = min(range(5), key=lambda k: nll_loss(log_p[k], target).item())
    assert greedy_weights(log_p, target, rounds=1).argmax() == best


def test_members_that_are_certain_and_wrong_somewhere_can_still_be_chosen():
    sure = torch.eye(3).log()  # each member is certain of one class
    log_p = sure[:, None].expand(3, 6, 3)
    weights = greedy_weights(log_p, torch.tensor([0, 0, 1, 1, 2, 2]), rounds=6)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3))


def test_dtype_and_inputs_are_left_alone():
    log_p, target = library(3, 8, 4, seed=0)
    before = log_p.clone()
    assert greedy_weights(log_p.float().requires_grad_(), target.int()).dtype == torch.float32
    greedy_weights(log_p, target)
    assert torch.equal(before, log_p)


@pytest.mark.parametrize(
    ("shape", "targets", "rounds", "message"),
    [
        ((4, 3), 4, 5, r"`log_probabilities` must have shape \(K, N, C\), none of them 0, got \(4, 3\)"),
        ((2, 0, 3), 0, 5, r"`log_probabilities` must have shape \(K, N, C\), none of them 0, got \(2, 0, 3\)"),
        ((2, 4, 3), 3, 5, r"`target` must be 4 class indices, got shape \(3,\)"),
        ((2, 4, 3), 4, 0, "`rounds` must be at least 1, got 0"),
    ],
)
def test_bad_arguments(shape, targets, rounds, message):
    with pytest.raises(ValueError, match=message):
        greedy_weights(torch.zeros(shape), torch.zeros(targets, dtype=torch.long), rounds)


def test_a_member_that_diverged_is_named():
    log_p, target = library(3, 4, 2, seed=0)
    log_p[1] = math.nan
    with pytest.raises(ValueError, match=r"got NaN from the members \[1\]"):
        greedy_weights(log_p, target)
