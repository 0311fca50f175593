import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_trainingkit.functional.averaging import (
    AVERAGES,
    EXACT_EARLY_EXIT,
    average_passes,
    check_weights,
    finish,
    running_average,
    settled,
)


def slow_average(passes, weights, average):
    """The definition, in double precision: probabilities ``(N, C)`` of passes ``(K, N, C)`` of logits."""
    p = passes.double().softmax(dim=2)
    if average == "votes":
        p = (p == p.amax(dim=2, keepdim=True)).double()
    if average == "geometric":
        mean = torch.ones_like(p[0])
        for each, weight in zip(p, weights, strict=True):
            mean *= each**weight
    elif average == "logits":
        mean = sum(weight * each for each, weight in zip(passes.double(), weights, strict=True)).exp()
    else:
        mean = sum(weight * each for each, weight in zip(p, weights, strict=True))
    return mean / mean.sum(dim=1, keepdim=True)


def draw(passes, samples, classes, seed, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(passes, samples, classes, generator=generator)
    weights = torch.rand(passes, generator=generator, dtype=torch.float64) + 0.05
    return logits, (weights / weights.sum()).tolist()


@pytest.mark.parametrize("average", AVERAGES)
@given(passes=st.integers(1, 8), samples=st.integers(1, 5), classes=st.integers(2, 9), seed=st.integers(0, 999))
def test_is_the_average_by_its_definition(average, passes, samples, classes, seed):
    logits, weights = draw(passes, samples, classes, seed)
    expected = slow_average(logits, weights, average)
    found = average_passes(logits, torch.tensor(weights), average)
    torch.testing.assert_close(found.exp(), expected.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(samples))
    equal = average_passes(logits, average=average)
    torch.testing.assert_close(
        equal.exp(), slow_average(logits, [1 / passes] * passes, average).float(), rtol=1e-5, atol=1e-6
    )


@given(seed=st.integers(0, 999))
def test_averaged_logits_are_the_normalised_geometric_mean(seed):
    logits, weights = draw(5, 4, 6, seed)
    weights = torch.tensor(weights)
    shifted = logits + 100 * torch.randn(5, 4, 1)  # what logits of one sample share is not part of the answer
    found = [average_passes(x, weights, average) for x in (logits, shifted) for average in ("logits", "geometric")]
    for each in found:
        torch.testing.assert_close(each, found[0], rtol=1e-5, atol=1e-4)


def test_pass_without_weight_does_not_count():
    logits, _ = draw(3, 4, 5, 0)
    logits[1] = math.nan
    torch.testing.assert_close(average_passes(logits, torch.tensor([0.5, 0.0, 0.5])), average_passes(logits[[0, 2]]))


def test_votes_keep_a_cross_entropy_finite():
    logits, _ = draw(4, 6, 10, 0)
    votes = average_passes(logits, average="votes")
    loss = torch.nn.functional.cross_entropy(votes, torch.full((6,), 9), reduction="none")
    assert loss.isfinite().all()
    assert loss.max().item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))


def test_a_tied_vote_counts_for_the_first_class():
    torch.testing.assert_close(average_passes(torch.zeros(1, 2, 3), average="votes").exp(), torch.eye(3)[[0, 0]])


@pytest.mark.parametrize("average", AVERAGES)
def test_a_pass_of_nan_is_seen_in_the_average_of_its_sample_alone(average):
    logits, _ = draw(3, 2, 4, 0)
    logits[1, 0, 2] = math.nan
    found = average_passes(logits, average=average)
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


def test_small_probabilities_do_not_underflow():
    logits = torch.tensor([[[0.0, -200.0]], [[0.0, -210.0]]])  # exp(-200) is 0 in float32
    found = average_passes(logits)[0, 1].item()
    assert found == pytest.approx(-200 + math.log((1 + math.exp(-10)) / 2), rel=1e-6)


def test_impossible_classes_stay_so():
    logits = torch.tensor([[[0.0, -math.inf, 0.0]], [[0.0, -math.inf, 1.0]]])
    found = average_passes(logits).exp()
    assert found[0, 1] == 0
    assert found.sum().item() == pytest.approx(1)


def test_totals_that_were_handed_in_are_left_alone():
    for average in AVERAGES:
        logits, _ = draw(2, 3, 4, 0)
        total = running_average(None, logits[0].log_softmax(1), 0.5, average)
        before = total.clone()
        running_average(total, logits[1].log_softmax(1), 0.5, average)
        finish(total, average)
        torch.testing.assert_close(total, before, rtol=0, atol=0)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_gradient(average):
    logits = draw(3, 2, 4, 0)[0].double().requires_grad_()
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: average_passes(x, weights, average), logits)


@st.composite
def adversaries(draw):
    """Passes ``(K, N, C)`` of log-probabilities that are close to a tie, tied, one-hot or flat, and their weights."""
    passes, classes = draw(st.integers(1, 50)), draw(st.integers(2, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    samples = 40
    scale = torch.tensor([0.0, 1e-6, 1e-3, 1.0, 10.0, 300.0])[torch.randint(6, (samples, 1), generator=generator)]
    log_p = (scale * torch.randn(passes, samples, classes, generator=generator)).log_softmax(2)
    kind = draw(st.sampled_from(["random", "two", "late", "rounded"]))
    if (
        kind == "two"
    ):  # one class for the first passes, another for all that follow: a lead is lost as fast as it can be
        turn = (uniform(1, samples, 1) * (passes + 1)).long() > torch.arange(passes).view(-1, 1, 1)
        sharp = torch.where(turn, torch.tensor([0.0, -300.0]), torch.tensor([-300.0, 0.0]))
        noise = draw(st.sampled_from([0.0, 1e-7, 1e-4]))
        log_p = (sharp + noise * torch.randn(passes, samples, 2, generator=generator)).log_softmax(2)
    elif kind == "late":
        log_p[passes // 2 :] = log_p[: passes - passes // 2].flip(2)
    elif kind == "rounded":
        p = (log_p.exp() * 8).round() + 1e-30
        log_p = (p / p.sum(dim=2, keepdim=True)).log()
    weights = draw(st.sampled_from(["equal", "random", "tiny"]))
    w = torch.ones(passes) if weights == "equal" else uniform(passes) ** (20 if weights == "tiny" else 1) + 1e-12
    return log_p, (w.double() / w.double().sum()).tolist()


@pytest.mark.parametrize("average", EXACT_EARLY_EXIT)
@settings(max_examples=400)
@given(case=adversaries())
def test_what_has_settled_is_the_argmax_of_the_full_average(average, case):
    log_p, weights = case
    leaders, certain, total, remaining = [], [], None, math.fsum(weights)
    for each, weight in zip(log_p, weights, strict=True):
        total = running_average(total, each, weight, average)
        remaining -= weight
        leaders.append(finish(total, average).argmax(dim=1))
        certain.append(settled(total, max(0.0, remaining), len(weights), average))
    for leader, sure in zip(leaders, certain, strict=True):
        assert torch.equal(leader[sure], leaders[-1][sure])


def test_settles_as_soon_as_the_lead_is_larger_than_what_is_left():
    p = torch.tensor([[0.9, 0.1]]).log()
    total, sure = None, []
    for made in range(1, 11):
        total = running_average(total, p, 0.1, "probabilities")
        sure.append(bool(settled(total, (10 - made) / 10, 10, "probabilities")))
    assert sure == [made * 0.8 > 10 - made for made in range(1, 11)]


def test_a_tie_never_settles():
    total = running_average(None, torch.zeros(1, 4).log_softmax(1), 1.0, "probabilities")
    assert not settled(total, 0.0, 1, "probabilities").any()
    total = running_average(None, torch.tensor([[0.0, -1.0]]), 0.5, "votes")
    total = running_average(total, torch.tensor([[-1.0, 0.0]]), 0.5, "votes")
    assert not settled(total, 0.0, 2, "votes").any()


@pytest.mark.parametrize("average", EXACT_EARLY_EXIT)
def test_nan_never_settles(average):
    total = running_average(None, torch.tensor([[math.nan, 0.0], [math.nan, math.nan]]).log_softmax(1), 1.0, average)
    assert not settled(total, 0.0, 1, average).any()


def test_an_unlikely_lead_is_measured_in_probability_not_in_its_logarithm():
    total = running_average(None, torch.tensor([[0.0, -50.0, -300.0]]).log_softmax(1), 0.6, "probabilities")
    assert settled(total, 0.4, 2, "probabilities").all()
    assert not settled(total, 0.6, 2, "probabilities").any()


@pytest.mark.parametrize("average", ["logits", "geometric", "median"])
def test_refuses_to_settle_what_one_pass_can_turn(average):
    with pytest.raises(ValueError, match="`average` must be probabilities or votes for an early exit"):
        settled(torch.zeros(1, 2), 0.1, 2, average)


def test_refuses_an_unknown_average():
    with pytest.raises(
        ValueError, match="`average` must be one of 'probabilities', 'logits', 'geometric', 'votes', got 'median'"
    ):
        average_passes(torch.zeros(2, 3, 4), average="median")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5, 0.0], "`weights` must be 2 numbers, one for each pass, got 3"),
        ([1.0, 1.0], "must be positive or 0 and sum to 1, got .* with sum 2. Divide them by 2"),
        ([1.5, -0.5], "must be positive or 0 and sum to 1, .* Leave them out for equal ones"),
        ([0.0, 0.0], "must be positive or 0 and sum to 1, .* Leave them out"),
        ([math.nan, 1.0], "must be positive or 0 and sum to 1"),
    ],
)
def test_refuses_weights_that_do_not_fit(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights("weights", weights, 2)
    with pytest.raises(ValueError, match=message):
        average_passes(torch.zeros(2, 3, 4), torch.tensor(weights))


@pytest.mark.parametrize("weights", [["a", 1.0], [None, 1.0], [torch.ones(2), 1.0]])
def test_refuses_weights_that_are_no_numbers(weights):
    with pytest.raises(TypeError, match="`weights` must be numbers, got"):
        average_passes(torch.zeros(2, 3, 4), weights)


def test_refuses_no_pass_at_all():
    with pytest.raises(ValueError, match="sum to 1"):
        average_passes(torch.zeros(0, 3, 4))


def test_weights_rounded_to_float32_are_accepted():
    check_weights("weights", torch.full((50,), 1 / 50).tolist(), 50)
