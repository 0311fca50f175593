from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from lightning_trainingkit.functional.split import stratified_split

labels = st.lists(st.integers(0, 6), min_size=1, max_size=120)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@given(labels=labels, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_parts_share_out_every_class(labels, fraction, seed):
    targets = torch.tensor(labels)
    first, second = stratified_split(targets, fraction, seeded(seed))
    assert sorted(first.tolist() + second.tolist()) == list(range(len(labels)))
    assert first.tolist() == sorted(first.tolist())
    counts, taken = Counter(labels), Counter(targets[second].tolist())
    for label, n in counts.items():
        low, high = (1, n - 1) if n > 1 else (0, 1)
        floor = int(fraction * n + 1e-9)
        assert max(low, floor) - (floor > high) <= taken[label] <= min(high, max(low, floor + 1))
    if all(n >= 2 and 1 <= fraction * n <= n - 1 for n in counts.values()):
        assert len(second) == round(fraction * len(labels))
    again = stratified_split(targets, fraction, seeded(seed))
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


@given(counts=st.lists(st.integers(20, 60), min_size=2, max_size=6))
def test_classes_are_cut_as_by_scikit_learn(counts):
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    _, second = stratified_split(targets, 0.25, seeded(0))
    _, peer = train_test_split(targets.numpy(), test_size=len(second), stratify=targets.numpy(), random_state=0)
    ours, theirs = torch.bincount(targets[second]), torch.bincount(torch.tensor(peer))
    assert (ours - theirs).abs().max() <= 1


def test_the_seed_decides_which_examples():
    targets = torch.arange(10).repeat(20)
    parts = [stratified_split(targets, 0.2, seeded(seed))[1] for seed in (0, 0, 1)]
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])


def test_every_example_is_as_likely_as_any_other():
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    drawn = torch.zeros(8)
    generator = seeded(0)
    for _ in range(400):
        drawn[stratified_split(targets, 0.25, generator)[1]] += 1
    assert drawn.sum() == 800
    assert (drawn / 400 - 0.25).abs().max() < 0.08


def test_rounding_does_not_lose_an_example():
    assert len(stratified_split(torch.zeros(100), 0.29)[1]) == 29


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fraction_outside(fraction):
    with pytest.raises(ValueError, match=r"`fraction` must be .*above 0 and below 1"):
        stratified_split(torch.zeros(4), fraction)


@pytest.mark.parametrize("shape", [(0,), (4, 2)])
def test_targets_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match="`targets` must be one label per example"):
        stratified_split(torch.zeros(shape), 0.5)
