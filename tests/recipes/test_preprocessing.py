"""All preprocessings train on the same batches, and the table says what came out."""

import json
import runpy

import pytest
import torch

from lightning_trainingkit.functional import PREPROCESSINGS
from tests.process import ROOT

SMALL = ("--seeds", "2", "--steps", "5")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "recipes/reproduce/preprocessing.py"))


@pytest.mark.slow
def test_the_table_comes_from_the_rows(run_recipe, tmp_path):
    said = run_recipe("reproduce/preprocessing.py", *SMALL, folder=tmp_path).stdout
    folder = tmp_path / "runs/preprocessing"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert [row["preprocessing"] for row in rows[::2]] == list(PREPROCESSINGS)
    for row in rows:
        assert f"{100 * row['test/acc']:.1f}" in said
    assert rows[0]["gain"] == rows[1]["gain"] == 0
    assert (folder / "preprocessing.png").read_bytes().startswith(b"\x89PNG")


def test_batches_are_the_same_images_after_each_preprocessing(script):
    args = type("Args", (), {"data": "digits", "data_dir": None, "batch_size": 7, "steps": 200})
    plain, whitened = (script["data_module"](args, kind, 3) for kind in ("none", "zca"))
    found = [script["batches_and_parts"](data, 3, args) for data in (plain, whitened)]
    assert found[0][0].shape == (200, 7, 64)
    restored = whitened.preprocessing.inverse(found[1][0].reshape(-1, 1, 8, 8)).reshape(200, 7, 64)
    torch.testing.assert_close(restored, found[0][0], atol=1e-5, rtol=0)
    for number in (1, 3, 5):
        assert torch.equal(found[0][number], found[1][number])


def test_the_panels_are_what_their_names_say(script):
    args = type("Args", (), {"data": "digits", "data_dir": None})
    torch.manual_seed(0)
    clouds = script["two_pixels"](script["data_module"](args, "none", 0))
    assert clouds["original data"].min() > -0.1
    assert clouds["zero-centred"].mean(0).abs().max() < 0.01
    torch.testing.assert_close(clouds["normalised"].std(0), torch.ones(2), atol=0.02, rtol=0)
    assert clouds["normalised"].T.corrcoef()[0, 1] > 0.3
    assert abs(clouds["decorrelated"].T.corrcoef()[0, 1]) < 0.02
    torch.testing.assert_close(clouds["whitened"].T.cov(), torch.eye(2), atol=0.1, rtol=0)  # with the noise
