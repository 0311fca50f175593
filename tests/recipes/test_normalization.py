"""All scales stop at one loss, and the table says what the weights' changes did."""

import json
import runpy

import pytest
import torch

from tests.process import ROOT

SMALL = ("--seeds", "2", "--loss", "0.2")
SCALES = ["as they are", "centred", "centred, per channel", "centred, per pixel"]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "recipes/reproduce/normalization.py"))


def test_the_table_and_the_claims_come_from_the_rows(run_recipe, tmp_path):
    said = run_recipe("reproduce/normalization.py", *SMALL, folder=tmp_path).stdout
    folder = tmp_path / "runs/normalization"
    found = json.loads((folder / "results.json").read_text())
    assert [row["inputs"] for row in found["rows"]] == SCALES
    for row in found["rows"]:
        assert 0 < row["rise at 3%"] < row["rise at 10%"] < row["rise at 30%"]
        assert f"{row['rise at 10%']:.3g} +- " in said
    first, last = found["rows"][0], found["rows"][-1]
    assert first["steps"] > last["steps"]
    assert found["metrics"]["sensitivity ratio"] > 1  # a mean of ratios
    assert all(f"{each['claim']}: {each['verdict']}." in said for each in found["figures"])
    assert (folder / "normalization.png").read_bytes().startswith(b"\x89PNG")


def test_every_scale_stops_at_the_loss_that_is_asked_for(script):
    images, targets = script["training_part"](0)
    assert images.min() == pytest.approx(0, abs=1e-6)
    assert images.max() == pytest.approx(1, abs=1e-6)
    for x in script["scales"](images).values():
        weights, _, _ = script["descend"](x, targets, 0.5, 100)
        logits = x @ weights[:, :-1].T + weights[:, -1]
        assert torch.nn.functional.cross_entropy(logits, targets).item() == pytest.approx(0.5, abs=1e-3)


def test_a_direction_and_its_opposite_leave_the_curvature(script):
    x, targets = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 4
    weights = torch.cat([torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(4, 1)], dim=1)
    one = script["sensitivity"](x, targets, weights, torch.Generator().manual_seed(2))
    assert one["rise at 10%"] / one["rise at 3%"] == pytest.approx((0.1 / 0.03) ** 2, rel=0.1)


def test_a_loss_that_is_not_reached_is_one_line(refused, tmp_path):
    said = refused("reproduce/normalization.py", "--steps", "1", "--loss", "0.01", folder=tmp_path)
    assert "as they are: --loss must be reached within --steps 1" in said.splitlines()[-1]
