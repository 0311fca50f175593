"""Two gloo ranks with other data and other losses take the same decision."""

import json
from pathlib import Path

import pytest

from tests import process


@pytest.mark.slow
def test_two_ranks_find_the_same_rate(tmp_path):
    process.run_ranks(Path(__file__).with_name("learning_rate_on_two_ranks.py"), tmp_path, folder=tmp_path)
    first, second = json.loads((tmp_path / "found.json").read_text())
    assert first == second
    assert first["function"]["rate"] > 0
    assert first["not applied"]["weights"] == first["without"]["weights"]
    assert first["not applied"]["rates"][0] > 0
