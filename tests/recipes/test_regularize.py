"""The recipe as a user runs it, in small: validation chooses, test is paired by seed, a second run only reads."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_trainingkit import experiments
from tests import process
from tests.process import environment

RECIPES = Path(__file__).parents[2] / "recipes"
SOME = ("L2", "dropout", "flips and shifts", "cutout")
ARGS = ("--accelerator", "cpu", "--seeds", "2", "--images", "64", "--epochs", "1", "--wandb", "disabled")
CNN, MLP, MORE = "CNN, 64 images", "MLP, 64 images", "CNN, 320 images"


def run(*args):
    command = (RECIPES / "regularize.py", *ARGS, "--only", *SOME, *args)
    return process.run(*command, env=environment(COLUMNS="160", PYTHONWARNINGS="ignore")).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regularize") / "out"
    run("--output", str(folder))
    return folder


@pytest.fixture
def setups(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.delitem(sys.modules, "regularize_setups", raising=False)
    import regularize_setups

    return regularize_setups


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_validation_chooses_a_strength_for_all_seeds(folder):
    found = results(folder)
    rows = [(row["case"], row["regulariser"]) for row in found["rows"]]
    assert rows == [
        *((CNN, name) for name in ("none", *SOME, "all together")),
        *((MLP, name) for name in ("none", "dropout", "vanilla dropout")),
        *((MORE, name) for name in ("none", "cutout")),
    ]
    scores = {}
    for path in folder.glob("CNN-64/seed-*/dropout=*/results.json"):
        scores.setdefault(path.parent.name, []).append(results(path.parent)["metrics"])
    assert {name: len(each) for name, each in scores.items() if "," not in name} == {
        f"dropout={rate}": 2 for rate in (0.1, 0.3, 0.5)
    }
    validation = {
        each[0]["strength"]: [sum(run[f"val/{score}"] for run in each) for score in ("error", "loss")]
        for name, each in scores.items()
        if "," not in name
    }
    (row,) = (row for row in found["rows"] if row["regulariser"] == "dropout" and row["case"] == CNN)
    assert row["strength"] == min(validation, key=validation.get)
    assert len(list(folder.glob("CNN-64/seed-*/L2=*,dropout=*,flips_and_shifts=*,cutout=*/results.json"))) == 2


@pytest.mark.slow
def test_differences_are_paired_by_seed_and_noise_is_averaged(folder):
    found = results(folder)
    for row in found["rows"]:
        runs, plain = (found["metrics"]["trainings"][row["case"]][name] for name in (row["regulariser"], "none"))
        gains = [100 * (one["test/error"] - run["test/error"]) for run, one in zip(runs, plain, strict=True)]
        assert row["gain"] == pytest.approx(sum(gains) / 2)
        assert row["gain +-"] == pytest.approx(12.7062 * abs(gains[0] - gains[1]) / 2, abs=1e-3)  # Student's t
        assert row["gap"] == pytest.approx(50 * sum(run["test/error"] - run["train/error"] for run in runs))
        noisy = row["regulariser"] in ("dropout", "flips and shifts", "all together")
        assert (row["averaged"] is not None) == noisy
    assert (folder / "regularize.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_lectures_sentences_are_judged_where_their_regularisers_were_trained(folder):
    figures = {each["claim"]: each["measured"] for each in results(folder)["figures"]}
    vanilla, large, small = figures
    assert vanilla.startswith("Vanilla")
    assert large.startswith("Dropout for large")
    assert small.startswith("Cutout and mixup for small sets")
    assert "mixup on" not in figures[small]  # it was left out
    trained = results(folder)["metrics"]["trainings"][MLP]["vanilla dropout"]
    assert all(run["apart"] < 1e-5 and run["forgotten/loss"] != run["test/loss"] for run in trained)


@pytest.mark.slow
def test_a_resumed_run_reads_what_is_finished(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/seed-*/*/results.json")}
    rows = results(folder)["rows"]
    out = run("--output", str(folder), "--resume")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/seed-*/*/results.json")} == before
    assert results(folder)["rows"] == rows
    assert f"{CNN}, L2: " in out


def test_all_regularisers_begin_with_the_same_weights_and_fit_both_networks(setups):
    case = setups.Case("digits", "CNN", 64, 10)
    assert len(setups.ALL) == 14
    x, weights = torch.randn(2, 1, 8, 8), []
    for name in ("none", *setups.ALL):
        regulariser = setups.REGULARISERS[name]
        assert len(regulariser.strengths) == (1 if name == "none" else 3)
        torch.manual_seed(0)
        model = setups.new_model("CNN", (1, 8, 8), 10, [regulariser.build(regulariser.strengths[-1], case)])
        assert model(x).shape == (2, 10)
        weights.append({key: value for key, value in model.named_parameters() if value.ndim > 1})
        assert any(isinstance(each, nn.BatchNorm2d) for each in model.modules()) == (name == "BatchNorm")
    for each in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each.values(), weights[0].values(), strict=True))


def test_what_excludes_each_other_is_not_trained_together(setups):
    every = setups.combined(dict.fromkeys(("none", *setups.ALL), 1.0))
    assert sorted(set(setups.ALL) - set(every)) == ["CutMix", "L1", "L2"]
    assert list(setups.combined({"L2": 0.1, "L1": 0.1, "CutMix": 1.0})) == ["L2", "CutMix"]


def test_vanilla_dropout_is_the_same_function_as_inverted_dropout(setups):
    torch.manual_seed(0)
    inverted = setups.mlp(64, 10)
    torch.manual_seed(0)
    vanilla = setups.mlp(64, 10, vanilla=0.5)
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(vanilla.eval()(x), inverted.eval()(x))
    assert setups.apart_from_inverted(vanilla, x) < 1e-5
    vanilla.eval().vanilla1.forgotten = True
    assert not torch.allclose(vanilla(x), inverted(x), atol=1e-2)


def test_a_timed_fit_that_is_shorter_than_an_epoch_has_a_validation(setups, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "regularize_training", raising=False)
    import regularize_training

    monkeypatch.setattr(regularize_training, "TIMED", 3)
    args = experiments.argument_parser("regularize", "").parse_args(["--accelerator", "cpu"])
    args.seeds = 2
    data = experiments.data_module("digits", args.data_dir, batch_size=16, seed=0)
    data.prepare_data()
    data.setup()
    chosen = {"none": {"none": 0}, "early stopping": {"early stopping": 0.1}}
    times = regularize_training.step_times(args, tmp_path, data, setups.Case("digits", "CNN", 64, 1), chosen)
    assert {name: len(each) for name, each in times.items()} == {"none": 2, "early stopping": 2}


def test_bad_options(refused, setups, tmp_path):
    assert "--share must be above 0 and at most 1, got 2.0" in refused("regularize.py", "--share", 2, folder=tmp_path)
    assert "--data must be digits or fashion-mnist" in refused("regularize.py", "--data", "cifar10", folder=tmp_path)
