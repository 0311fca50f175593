"""What the recipe refuses and averages. Its steps are those of ``tests/tuning/searches/test_searches.py``."""

import runpy

import pytest

from tests.recipes.conftest import RECIPES


def test_data_that_is_not_there_is_said_before_any_step(refused, tmp_path):
    assert "got 'nowhere', which is none of them" in refused("seven_steps.py", "--data", "nowhere", folder=tmp_path)
    assert "must be at least 2, got 1" in refused("seven_steps.py", "--seeds", "1", folder=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_the_average_of_a_trial_is_a_tenth_of_its_steps_old():
    tail_average = runpy.run_path(str(RECIPES / "seven_steps.py"))["tail_average"]
    for steps in (200, 2000):
        average = 0.0
        for step in range(1, steps + 1):
            average = tail_average(average, float(step), step)
        assert steps - average == pytest.approx(0.1 * steps, rel=0.02)
