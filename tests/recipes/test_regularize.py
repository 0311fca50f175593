"""The recipe as a user runs it, in small: validation chooses, test is paired by seed, a second run only reads."""

import json
from pathlib import Path

import pytest

from tests import process
from tests.process import environment

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "recipes" / "regularize.py"
ARGS = ("--accelerator", "cpu", "--seeds", "2", "--images", "64", "--epochs", "1", "--wandb", "disabled")


def run(*args):
    return process.run(SCRIPT, *args, env=environment(COLUMNS="160", PYTHONWARNINGS="ignore")).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regularize") / "out"
    run(*ARGS, "--only", "L2", "flips and shifts", "--output", str(folder))
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_each_strength_is_trained_and_validation_chooses(folder):
    found = results(folder)
    names = ["none", "L2", "flips and shifts", "all together"]
    assert [row["regulariser"] for row in found["rows"]] == names
    for seed in (0, 1):
        tried = [results(path)["metrics"] for path in (folder / f"seed-{seed}").glob("L2=*") if "," not in path.name]
        assert len(tried) == 3
        assert min(tried, key=lambda each: each["val/loss"]) == found["metrics"]["trainings"]["L2"][seed]
    assert len(list(folder.glob("seed-*/L2=*,flips_and_shifts=*/results.json"))) == 2


def test_gains_are_paired_by_seed_and_noise_is_averaged(folder):
    found = results(folder)
    trainings = found["metrics"]["trainings"]
    for row in found["rows"]:
        pairs = zip(trainings[row["regulariser"]], trainings["none"], strict=True)
        gains = [100 * (plain["test"] - run["test"]) for run, plain in pairs]
        assert row["gain"] == pytest.approx(sum(gains) / 2)
        noisy = row["regulariser"] in ("flips and shifts", "all together")
        assert (row["averaged"] is not None) == noisy
    assert (folder / "regularize.png").stat().st_size > 5000


def test_a_resumed_run_reads_what_is_finished(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("seed-*/*/results.json")}
    rows = results(folder)["rows"]
    out = run(*ARGS, "--only", "L2", "flips and shifts", "--output", str(folder), "--resume")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("seed-*/*/results.json")} == before
    assert results(folder)["rows"] == rows
    assert "L2: " in out
