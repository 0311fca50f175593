"""Each benchmark runs in small and writes what it measured; whether a goal is met it says itself."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import lightning as L
import pytest
import torch

import lightning_trainingkit
from lightning_trainingkit.callbacks.noise.surgery import Surgery
from lightning_trainingkit.callbacks.noise.training_batch import BatchCallback
from lightning_trainingkit.callbacks.noise.weight_penalty import WeightPenalty
from tests import process

BENCHMARKS = Path(__file__).parent / "benchmarks"


def run(name, *arguments):
    """Run a benchmark in small; its results, and their rows by name. It exits with 1 if it has missed a goal."""
    done = process.run(BENCHMARKS / f"{name}.py", *arguments, "--output", "out", ok=False)
    assert Path("out/results.json").exists(), done.stderr
    results = json.loads(Path("out/results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert all(list(row) == ["name", "ours", "peer", "ratio", "low", "high", "goal", "ok"] for row in rows.values())
    assert done.returncode == (0 if all(row["ok"] for row in rows.values()) else 1)
    return results, rows


def test_overhead_measures_every_public_callback():
    results, rows = run("overhead", "--steps", "25", "--epochs", "1", "--fits", "1", "--imports", "2")
    assert results.keys() == {"config", "metrics", "rows", "seconds", "versions"}
    for row in rows.values():
        assert row["low"] <= row["high"]
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "step overhead": 1.02,
        "hooks, without diagnostics share": 0.02,
        "import overhead, ms": 30,
    }
    # a block of 5 steps for each, in each of three epochs
    assert results["metrics"]["steps"] == {"on": 15, "off": 15, "control": 15}
    public = [getattr(lightning_trainingkit, name) for name in dir(lightning_trainingkit)]
    callbacks = [each for each in public if isinstance(each, type) and issubclass(each, L.Callback)]
    # LearningRateTest trains by itself. Callbacks on batches and on layers work inside of the step, and WeightPenalty's
    # work grows with the weights: `noise.py` and `surgery.py` measure them
    inside = (BatchCallback, Surgery, WeightPenalty)
    in_hooks = {each.__name__ for each in callbacks if not issubclass(each, inside)} - {"LearningRateTest"}
    assert in_hooks
    assert rows.keys() >= {f"{name} share" for name in in_hooks}


@pytest.mark.slow
def test_dashboard_measures_reading_drawing_and_the_callback():
    if shutil.which("chromedriver") is None and "CI" not in os.environ:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    _, rows = run("dashboard", "--runs", "2x40x5", "--many", "3x60x6", "--rounds", "1", "--steps", "25")
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "2 x 40 x 5: page from cold, s": 5,
        "2 x 40 x 5: page from cache, s": 1.5,
        "2 x 40 x 5: page size, MB": 12,
        "2 x 40 x 5: first panel overhead, s": 1.4,
        "3 x 60 x 6: page from cache, s": 3,
        "3 x 60 x 6: page size, MB": 25,
        "3 x 60 x 6: first panel overhead, s": 2.5,
        "3 x 60 x 6: longest stall, s": 2,
        "CommandCenter share": 0.01,
    }


@pytest.mark.slow
def test_averaging_compares_with_both_peers_in_time_argmax_and_memory():
    _, rows = run("averaging", "--steps", "10", "--images", "32", "--batch-sizes", "8", "16", "--rounds", "1")
    goals = {goal for row in rows.values() if (goal := row["goal"]) is not None}
    assert goals == ({0.0, 0.98, 1.1, 1.4} if not torch.cuda.is_available() else {0.0, 0.98, 1.1, 1.4, 2.0})
    for size in (8, 16):
        assert rows[f"ttach, batches of {size}: argmax share that the early exit changes"]["ours"] == 0
        for members in (5, 20):
            for peer in ("torchensemble", "loop", "vectorize, torchensemble", "vectorize, loop", "control"):
                assert f"{members} x SmallResNet, batches of {size}: {peer}" in rows
    assert rows["memory of 50 passes, max_batch=8"]["ok"]


@pytest.mark.slow
def test_transfer_compares_with_full_training_and_with_both_peers():
    _, rows = run("transfer", "--batches", "2", "--rounds", "1")
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "head only": 2.5,
        "head only, cached, after the first epoch": 30,
        "schedule: BackboneFinetuning": 0.98,
        "schedule: finetuning-scheduler": 0.98,
        "schedule, peak memory: BackboneFinetuning": 1.0,
        "schedule, peak memory: finetuning-scheduler": 1.0,
    }
    assert rows["head only"]["ratio"] > 1


@pytest.mark.slow
def test_diagnostics_compares_with_a_number_at_a_time_and_with_wandb():
    results, rows = run("diagnostics", "--threes", "1", "--pixels", "32")
    assert {name: row["goal"] for name, row in rows.items() if row["goal"] is not None} == {
        "step overhead: all": 1.05,
        "added by the two, share of Composer's way": 0.3333,
        "added by the two, share of wandb.watch": 0.3333,
        "graph breaks": 0,
    }
    assert rows["graph breaks"]["ok"]
    assert rows["step overhead: Composer's way"]["ratio"] > 1
    assert len(results["metrics"]["layers"]) == 9


@pytest.mark.slow
def test_curves_judges_both_halves_and_both_peers():
    results, rows = run("curves", "--tasks", "spirals", "ripples", "--plants", "diverged")
    assert [name.split(":")[0] for name in rows] == ["development"] * 2 + ["held-out"] * 2
    assert [row["goal"] for row in rows.values()] == [None, None, 0.9, 0.9]
    dropped = sum(results["metrics"]["relabelled"]["dropped"].values())
    counts = [int(name.split(" of ")[1].split()[0]) for name in rows][::2]
    assert sum(counts) + dropped == len(list(Path("out/curves").iterdir())) == 8
    assert not [file for file in Path("out/curves").iterdir() if file.suffix != ".json"]


@pytest.mark.slow
def test_learning_rate_judges_all_methods_and_goes_on_after_an_end():
    small = ("--tasks", "digits, MLP, SGD", "--seeds", "2", "--epochs", "1", "--workers", "1")
    results, rows = run("learning_rate", *small)
    assert {name.partition(": ")[2]: row["goal"] for name, row in rows.items() if row["goal"] is not None} == {
        "median regret": 0.5,
        "worst task": 2.0,
        "diverged or at chance": 0,
        next(name for name in rows if "less that of" in name).partition(": ")[2]: 0.5,
        "most iterations": 800,
    }
    methods = {row["method"]: row for row in results["metrics"]["methods"]}
    assert len(methods) == 12
    assert methods["Lightning"]["steps"] == 100
    assert methods["ours"]["steps"] > 100
    assert results["metrics"]["errors"] == []
    assert results["metrics"]["grid"][0]["at 10, %"] < 30  # the cliff is inside of the grid
    kept = Path("out/results.jsonl").read_text()
    run("learning_rate", *small, "--resume")
    assert Path("out/results.jsonl").read_text() == kept


@pytest.mark.slow
def test_noise_measures_the_parts_that_are_asked_for():
    results, rows = run("noise", "--only", "blending", "--only", "augmenting", "--rounds", "2")
    assert list(results["metrics"]["seconds"]) == ["blending", "augmenting"]
    assert sum("control" in name for name in rows) >= 2
    assert {row["goal"] for row in rows.values()} >= {1.02, 0.1, 10, 1.0, 1.3, 3}


@pytest.mark.parametrize(
    "name",
    [
        *("averaging", "curves", "dashboard", "diagnostics", "learning_rate", "noise", "overhead", "surgery_models"),
        "transfer",
        "tuning",
    ],
)
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.syspath_prepend(BENCHMARKS)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert "--output" in capsys.readouterr().out


@pytest.mark.slow
def test_surgery_compares_noise_and_penalties_with_the_plain_step_and_layers_by_hand():
    _, rows = run("surgery", "--rounds", "2", "--batch-size", "4")
    goals = {name.removesuffix(": step overhead"): row["goal"] for name, row in rows.items()}
    assert {name: goal for name, goal in goals.items() if goal is not None} == {
        "StochasticDepth(0.2), row": 1.08,
        "StochasticDepth(0.2), batch": 0.95,
        "after remove()": 1.0,
        **{f"WeightPenalty, {name}": 1.03 for name in ("elastic net", "L2", "L1", "L1, proximal")},
    }
    assert {"control", "WeightPenalty, control"} < goals.keys()
    public = {name for name in dir(lightning_trainingkit) if isinstance(getattr(lightning_trainingkit, name), type)}
    noises = {name for name in public if issubclass(getattr(lightning_trainingkit, name), Surgery)}
    assert noises == {name for name in noises if any(row.startswith(name) for row in goals)}


@pytest.mark.slow
def test_surgery_models_keeps_the_promises_on_a_dozen_models():
    names = ("timm/test_*", "*/squeezenet1_1", "*/resnet10t", "*/starnet_s050", "*/lcnet_035")
    results, rows = run("surgery_models", "--workers", "1", "--only", *names)
    models = {row["model"]: row for row in results["metrics"]["models"]}
    assert len(models) == 12
    promised = [row for name, row in rows.items() if name.endswith("kept or refused")]
    assert len(promised) == 11
    assert all(row["ratio"] == 1 for row in promised)
    assert models["timm/resnet10t"]["row"] == models["timm/resnet10t"]["batch"] == "4"
    for mode in ("row", "batch"):
        assert rows[f"StochasticDepth {mode}: applied on residual models"]["ratio"] == 1
        assert rows[f"StochasticDepth {mode}: refused without residual blocks"]["ratio"] == 1
    assert {row["state"] for row in results["metrics"]["reasons"]} == {"refused", "left"}
