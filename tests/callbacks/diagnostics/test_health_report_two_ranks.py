"""Two gloo ranks with other data have the same findings, and stop together."""

import json
from pathlib import Path

import pytest

from tests import process


@pytest.mark.slow
def test_two_ranks_report_the_same(tmp_path):
    process.run_ranks(Path(__file__).with_name("health_report_on_two_ranks.py"), tmp_path, folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(each["equal"] for each in found.values()), found
    kinds = {case: each["kinds"] for case, each in found.items()}
    assert kinds["healthy"] == kinds["gathers"] == kinds["not copied on rank 1"] == []
    assert kinds["sigmoids"][0] == "vanishing_gradient"
    assert kinds["nan on rank 1"] == ["non_finite"]
    assert found["nan on rank 1"]["steps"] < 20
    assert found["healthy"]["steps"] == 160
