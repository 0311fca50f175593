"""Each benchmark runs in small and writes what it measured; whether a goal is met it says itself."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest

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


@pytest.mark.parametrize("name", ["overhead"])
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.syspath_prepend(BENCHMARKS)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert "--output" in capsys.readouterr().out
