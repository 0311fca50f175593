import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.schedules import cycle_ends, cyclic_cosine


@given(cycles=st.integers(1, 9), length=st.integers(1, 30))
def test_equals_the_formula_of_the_paper_where_the_cycles_are_even(cycles, length):
    total = cycles * length
    for step in range(total):
        t = step + 1  # the paper counts from 1
        paper = (math.cos(math.pi * ((t - 1) % math.ceil(total / cycles)) / math.ceil(total / cycles)) + 1) / 2
        assert cyclic_cosine(step, total, cycles) == pytest.approx(paper)


@given(total=st.integers(1, 200), data=st.data())
def test_each_cycle_falls_from_one_to_its_end(total, data):
    cycles = data.draw(st.integers(1, total))
    ends = cycle_ends(total, cycles)
    starts = [0, *ends[:-1]]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    assert len(ends) == cycles
    assert ends[-1] == total
    assert max(lengths) - min(lengths) <= 1
    shares = [cyclic_cosine(step, total, cycles) for step in range(total)]
    assert all(0 < share <= 1 for share in shares)
    for start, end in zip(starts, ends, strict=True):
        assert shares[start] == 1
        assert shares[start:end] == sorted(shares[start:end], reverse=True)


def test_nothing_springs_up_after_the_end():
    assert cyclic_cosine(8, 8, 2) == cyclic_cosine(80, 8, 2) == cyclic_cosine(7, 8, 2)


@pytest.mark.parametrize("cycles", [0, -1, 11])
def test_more_cycles_than_steps_or_none(cycles):
    with pytest.raises(ValueError, match=f"`cycles` must be from 1 to the number of optimizer steps, 10, got {cycles}"):
        cycle_ends(10, cycles)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="`step` must not be negative, got -1"):
        cyclic_cosine(-1, 10, 2)
    with pytest.raises(TypeError, match=r"`cycles` must be an integer, got 2\.5"):
        cycle_ends(10, 2.5)
    with pytest.raises(TypeError, match="`total_steps` must be an integer, got inf"):
        cycle_ends(float("inf"), 2)
