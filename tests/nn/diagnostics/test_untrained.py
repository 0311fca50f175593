"""The decision on parameters that are not trained, and how their names are grouped."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.nn.diagnostics.parameter_watch import ParameterFact
from lightning_trainingkit.nn.diagnostics.untrained import find_untrained, group_names, listed

TRAINED = ParameterFact(100, True, False, arrived=True, nonzero=True, applied=True, steps=100, changed=True)
UNUSED = replace(TRAINED, arrived=False, nonzero=False, applied=False, changed=False)
NAMES = [f"{part}.{layer}.{name}" for part in "ab" for layer in "01" for name in ("weight", "bias")]


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_groups_cover_the_chosen_parameters_and_no_others(chosen):
    groups = group_names(sorted(chosen), NAMES)
    covered = {name for name in NAMES for group in groups if name == group or name.startswith(f"{group}.")}
    assert covered == chosen
    assert len(groups) <= len(chosen)


@pytest.mark.parametrize(
    ("batches", "epochs", "final", "found"),
    [(99, 0, False, False), (100, 0, False, True), (29, 1, False, False), (30, 1, False, True), (9, 1, True, False)],
)
def test_how_long_a_parameter_must_be_without_a_gradient(batches, epochs, final, found):
    facts = {"a.weight": replace(UNUSED, batches=batches), "b.weight": TRAINED}
    assert bool(find_untrained(facts, epochs=epochs, final=final)) is found


def test_one_of_several_optimizers_may_begin_later():
    waiting = replace(TRAINED, applied=False, changed=False, steps=0)
    both = {"a.weight": waiting, "b.weight": TRAINED}
    assert not find_untrained(both, epochs=1, final=False)
    assert find_untrained(both, epochs=2, final=False)
    assert find_untrained({"a.weight": waiting}, epochs=1, final=False)


def test_reasons_come_in_their_order_with_their_share():
    outside = replace(TRAINED, in_optimizer=False, applied=False, changed=False)
    found = find_untrained({"c.weight": UNUSED, "a.weight": outside, "b.weight": TRAINED}, epochs=1, final=True)
    assert [(finding.where, finding.value) for finding in found] == [("a", 1 / 3), ("c", 1 / 3)]


def test_ranks_join_to_what_any_of_them_saw():
    assert UNUSED.merge(TRAINED) == TRAINED.merge(UNUSED) == TRAINED


def test_long_lists_are_cut():
    assert listed([*"abcdef"]) == "a, b, c, d and 2 more"
