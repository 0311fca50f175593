"""The recipe as a user runs it: two configurations on the same folds, and the ensemble of the fold models."""

import json

import pytest

QUICK = ("--accelerator", "cpu", "--folds", "2", "--repeats", "1", "--epochs", "1")


@pytest.mark.slow
def test_the_folds_are_scored_compared_and_averaged(tmp_path, run_recipe, grouped):
    run = run_recipe("cross_validation.py", *QUICK, folder=tmp_path)
    folder = tmp_path / "runs/cross_validation"
    found = json.loads((folder / "results.json").read_text())
    assert [row["folds"] for row in found["rows"]] == [2, 2]
    best, other = (row["val/acc"] for row in found["rows"])
    assert best >= other
    assert f"has the best val/acc of 2: {best:.4g} ± " in run.stdout
    assert f"{found['metrics']['ensemble']['acc gain']:+.4f} +-" in run.stdout
    trials = [f"configuration={number},fold={fold}" for number in range(2) for fold in range(2)]
    assert grouped(folder, run.stdout) == {"train": trials, "ensemble": ["folds=2"]}


def test_more_folds_than_the_rarest_class_has_images(tmp_path, refused):
    said = refused("cross_validation.py", "--folds", "300", folder=tmp_path)
    assert "`folds` must be at most the size of the rarest class, got 300" in said
