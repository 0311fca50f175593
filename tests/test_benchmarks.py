"""Each benchmark runs in small and writes what it measured; whether a goal is met it says itself."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch

import lightning_trainingkit

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_overhead_measures_every_public_callback():
    tiny = ("--steps", "25", "--epochs", "1", "--fits", "1", "--imports", "2", "--output", "out")
    command = [sys.executable, BENCHMARKS / "overhead.py", *tiny]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    results = json.loads(Path("out/results.json").read_text())
    assert results.keys() == {"config", "metrics", "rows", "seconds", "versions"}
    rows = {row["name"]: row for row in results["rows"]}
    for row in rows.values():
        assert list(row) == ["name", "ours", "peer", "ratio", "low", "high", "goal", "ok"]
        assert row["low"] <= row["high"]
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "step overhead": 1.02,
        "all hooks share": 0.02,
        "import overhead, ms": 30,
    }
    assert done.returncode == (0 if all(row["ok"] for row in rows.values()) else 1)
    # a block of 5 steps for each, in each of three epochs
    assert results["metrics"]["steps"] == {"on": 15, "off": 15, "control": 15}
    public = [getattr(lightning_trainingkit, name) for name in dir(lightning_trainingkit)]
    callbacks = [each.__name__ for each in public if isinstance(each, type) and issubclass(each, L.Callback)]
    assert callbacks
    assert rows.keys() >= {f"{name} share" for name in callbacks}


def test_dashboard_measures_reading_drawing_and_the_callback():
    if shutil.which("chromedriver") is None and "CI" not in os.environ:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    tiny = ("--runs", "2x40x5", "--many", "3x60x6", "--rounds", "1", "--steps", "25", "--output", "out")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "dashboard.py", *tiny], capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, 1), done.stderr
    rows = {row["name"]: row for row in json.loads(Path("out/results.json").read_text())["rows"]}
    assert all(list(row) == ["name", "ours", "peer", "ratio", "low", "high", "goal", "ok"] for row in rows.values())
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "2 x 40 x 5: page from cold, s": 20,
        "2 x 40 x 5: page from cache, s": 1.5,
        "2 x 40 x 5: page size, MB": 12,
        "2 x 40 x 5: first panel overhead, s": 1.4,
        "3 x 60 x 6: page size, MB": 25,
        "3 x 60 x 6: first panel overhead, s": 2.5,
        "3 x 60 x 6: longest stall, s": 2,
        "CommandCenter share": 0.01,
    }
    assert done.returncode == (0 if all(row["ok"] for row in rows.values()) else 1)


def test_averaging_compares_with_both_peers_in_time_argmax_and_memory():
    tiny = ("--steps", "20", "--images", "64", "--rounds", "1", "--output", "out")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "averaging.py", *tiny], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stderr
    rows = {row["name"]: row for row in json.loads(Path("out/results.json").read_text())["rows"]}
    assert all(list(row) == ["name", "ours", "peer", "ratio", "low", "high", "goal", "ok"] for row in rows.values())
    goals = {goal for row in rows.values() if (goal := row["goal"]) is not None}
    assert goals == ({0.0, 0.98, 1.1, 1.4} if not torch.cuda.is_available() else {0.0, 0.98, 1.1, 1.4, 2.0})
    for size in (32, 250):
        assert rows[f"ttach, batches of {size}: argmax share that the early exit changes"]["ours"] == 0
        for members in (5, 20):
            for peer in ("torchensemble", "loop", "control"):
                assert f"{members} x SmallResNet, batches of {size}: {peer}" in rows
    assert rows["memory of 50 passes, max_batch=64"]["ok"]
    assert done.returncode == (0 if all(row["ok"] for row in rows.values()) else 1)


def test_transfer_compares_with_full_training_and_with_both_peers():
    tiny = ("--batches", "2", "--rounds", "1", "--output", "out")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "transfer.py", *tiny], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stderr
    rows = {row["name"]: row for row in json.loads(Path("out/results.json").read_text())["rows"]}
    assert all(list(row) == ["name", "ours", "peer", "ratio", "low", "high", "goal", "ok"] for row in rows.values())
    assert {name: row["goal"] for name, row in rows.items() if row["goal"]} == {
        "head only": 2.5,
        "head only, cached, after the first epoch": 30,
        "schedule: BackboneFinetuning": 0.98,
        "schedule: finetuning-scheduler": 0.98,
        "schedule, peak memory: BackboneFinetuning": 1.0,
        "schedule, peak memory: finetuning-scheduler": 1.0,
    }
    assert rows["head only"]["ratio"] > 1
    assert done.returncode == (0 if all(row["ok"] for row in rows.values()) else 1)


@pytest.mark.parametrize("name", ["averaging", "dashboard", "overhead", "transfer"])
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.syspath_prepend(BENCHMARKS)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert "--output" in capsys.readouterr().out
