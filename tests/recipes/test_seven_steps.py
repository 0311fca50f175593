"""What the recipe refuses. Its steps are those of ``tests/tuning/searches/test_searches.py``."""


def test_data_that_is_not_there_is_said_before_any_step(refused, tmp_path):
    assert "got 'nowhere', which is none of them" in refused("seven_steps.py", "--data", "nowhere", folder=tmp_path)
    assert "must be at least 2, got 1" in refused("seven_steps.py", "--seeds", "1", folder=tmp_path)
    assert not (tmp_path / "runs").exists()
