import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.expected_best import expected_best

VALUES = [0.3, 0.1, 0.9, 0.5, 0.2, 0.7]


@pytest.mark.parametrize(("mode", "pick"), [("min", np.min), ("max", np.max)])
@pytest.mark.parametrize("draws", [1, 3, 6])
def test_it_is_the_mean_of_many_bootstrap_draws(mode, pick, draws):
    drawn = pick(np.random.default_rng(0).choice(VALUES, (100_000, draws)), axis=1)
    mean, spread = expected_best(VALUES, draws, mode)
    assert mean == pytest.approx(drawn.mean(), abs=2e-3)
    assert spread == pytest.approx(drawn.std(), abs=2e-3)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.integers(1, 30))
def test_more_draws_are_never_worse(values, draws):
    assert expected_best(values, draws + 1)[0] <= expected_best(values, draws)[0] + 1e-9
    assert expected_best(values, 1)[0] == pytest.approx(np.mean(values), abs=1e-9)
