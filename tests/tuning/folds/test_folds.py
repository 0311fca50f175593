import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.tuning.folds.folds import make_folds


@given(st.integers(2, 5), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_each_example_is_held_out_once_in_each_repeat(number, repeats, stratify, seed):
    labels = np.random.default_rng(seed).permutation([0] * 23 + [1] * 9 + [7] * 5).tolist()
    folds = make_folds(37, number, repeats, labels=labels if stratify else None, seed=seed)
    assert (len(folds), folds.folds, folds.repeats) == (number * repeats, number, repeats)
    for repeat in range(repeats):
        parts = [folds.validation(repeat * number + fold) for fold in range(number)]
        assert sorted(index for part in parts for index in part) == list(range(37))
        assert max(map(len, parts)) - min(map(len, parts)) <= 3
        if stratify:
            for label in (0, 1, 7):
                counts = [sum(labels[index] == label for index in part) for part in parts]
                assert max(counts) - min(counts) <= 1
    for fold in range(len(folds)):
        assert sorted(folds.train(fold) + folds.validation(fold)) == list(range(37))


@given(st.integers(2, 4), st.booleans(), st.integers(0, 99))
def test_a_group_is_in_one_fold(number, stratify, seed):
    groups = np.random.default_rng(seed).permutation([f"patient {each % 12}" for each in range(60)]).tolist()
    labels = [each % 2 for each in range(60)] if stratify else None
    folds = make_folds(60, number, 2, labels=labels, groups=groups, seed=seed)
    for fold in range(len(folds)):
        held_out = {groups[index] for index in folds.validation(fold)}
        assert held_out
        assert held_out.isdisjoint(groups[index] for index in folds.train(fold))


def test_the_seed_fixes_the_folds_and_repeats_differ():
    one, same, other = (make_folds(40, 4, 2, seed=seed) for seed in (3, 3, 4))
    assert one.version == same.version != other.version
    assert one.validation(0) != one.validation(4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "`folds` must be at least 2, got 1"),
        ({"folds": 13}, "`folds` must be at most the number of examples, 12, got 13"),
        (
            {"folds": 4, "labels": [0] * 9 + [5] * 3},
            "at most the size of the rarest class, got 4: class 5 has 3 of 12 examples. Take fewer folds, or",
        ),
        ({"folds": 2, "labels": [0] * 11}, "one class for each of 12 examples, got shape"),
        ({"folds": 2, "groups": [0] * 11}, "one group for each of 12 examples, got shape"),
        ({"folds": 4, "groups": [1, 2, 3] * 4}, "at most the number of groups, 3, got 4"),
        (
            {"folds": 3, "labels": [0] * 9 + [1] * 3, "groups": [0, 1, 2] * 3 + [9] * 3},
            "leave each class in each training part, got class 1",
        ),
        ({"folds": 2, "repeats": 0}, "`repeats` must be at least 1"),
    ],
)
def test_bad_input(options, said):
    with pytest.raises(ValueError, match=said):
        make_folds(12, **options)
