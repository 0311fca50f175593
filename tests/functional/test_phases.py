from collections import UserDict, UserList
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.phases import PRESETS, layer_factor, read_phases, warmup_factor


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    phases = read_phases(name)
    assert phases[0].train == ("head",)
    assert read_phases([phase.plain for phase in phases]) == phases


def test_sequences_and_mappings_are_as_good_as_lists_and_dicts():  # as hydra gives them
    plain = [{"train": "head"}, {"train": ["a", "b"], "start": 1, "lr_scale": {"a": 0.5}}]
    given = UserList(
        [
            UserDict({"train": "head"}),
            UserDict({"train": UserList(["a", "b"]), "start": 1, "lr_scale": UserDict({"a": 0.5})}),
        ]
    )
    assert read_phases(given) == read_phases(plain)
    assert [phase.plain for phase in read_phases(given)] == [phase.plain for phase in read_phases(plain)]


@pytest.mark.parametrize(
    ("phases", "error", "said"),
    [
        ("big_data", ValueError, "must be 'small_data' or 'more_data'"),
        ({"train": "head"}, TypeError, "a list of dicts"),
        ([], ValueError, "at least one phase"),
        (["head"], TypeError, "a list of dicts"),
        ([{}], ValueError, "must have `train`"),
        (
            [{"train": "head", "lr": 1}],
            ValueError,
            r"no keys but .*lr_scale, got \['train', 'lr'\]",
        ),
        ([{"train": 2}], TypeError, "a string or a list"),
        ([{"train": []}], ValueError, "must name something"),
        ([{"train": "last 0"}], ValueError, "at least one block"),
        ([{"train": "head", "start": 2}], ValueError, "must start at once, got start=2"),
        ([{"train": "head", "patience": 2}], ValueError, "must start at once"),
        ([{"train": "head"}, {"train": "all"}], ValueError, "either `start` or `patience`, got start=None"),
        ([{"train": "head"}, {"train": "all", "start": 1, "patience": 1}], ValueError, "either `start` or `patience`"),
        ([{"train": "head"}, {"train": "all", "patience": 0}], ValueError, "at least 1"),
        ([{"train": "head"}, {"train": "all", "patience": 1.5}], TypeError, "must be an integer"),
        ([{"train": "head"}, {"train": "all", "start": "soon"}], TypeError, "must be a number"),
        ([{"train": "head"}, {"train": "all", "start": True}], TypeError, "must be a number"),
        ([{"train": "head"}, {"train": "all", "start": 0}], ValueError, "must be at least 1, got 0"),
        (
            [{"train": "head"}, {"train": "all", "start": 1.0}],
            ValueError,
            "above 0 and below 1, got 1.0",
        ),
        ([{"train": "head"}, {"train": "all", "start": 3}, {"train": "all", "start": 3}], ValueError, r"got \[3, 3\]"),
        ([{"train": "head"}, {"train": "all", "start": 0.5}, {"train": "all", "start": 0.2}], ValueError, "in order"),
        ([{"train": "head", "lr_scale": 0}], ValueError, "must be .*above 0, got 0"),
        ([{"train": "head", "lr_scale": float("inf")}], ValueError, "must be .*above 0"),
        ([{"train": "head", "lr_scale": "low"}], TypeError, "must be a number"),
        ([{"train": "head", "lr_scale": {"head": -1}}], ValueError, "must be .*above 0"),
    ],
)
def test_errors(phases, error, said):
    with pytest.raises(error, match=said):
        read_phases(phases)


@given(st.integers(1, 40), st.floats(0.01, 1))
def test_rates_fall_from_head_to_stem(blocks, decay):
    factors = [layer_factor(block, blocks, decay) for block in range(blocks)]
    assert factors[-1] == 1
    assert factors == sorted(factors)
    assert blocks == 1 or factors[0] == pytest.approx(decay)
    ratios = [one / after for one, after in pairwise(factors)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios) if ratios else [])


@given(st.integers(0, 50))
def test_warm_up_ends_where_it_says(steps):
    factors = [warmup_factor(step, steps) for step in range(steps + 2)]
    assert factors[steps:] == [1.0, 1.0]
    assert all(0 < factor < 1 for factor in factors[:steps])
    assert factors == sorted(factors)
