"""The recipe as a user runs it: both fits of a seed are real, table and file agree, the picture is there."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from tests import process
from tests.process import environment

SCRIPT = Path(__file__).parents[2] / "recipes" / "reproduce" / "early_stopping.py"
ARGS = ("--accelerator", "cpu", "--seeds", "2", "--epochs", "12", "--patience", "2")


def run(*args: str) -> str:
    """Run the script in the current folder, which is the test's own, and return what it printed."""
    env = environment(COLUMNS="160", PYTHONWARNINGS="ignore")
    return process.run(SCRIPT, *args, env=env).stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early_stopping") / "out"
    out = run(*ARGS, "--output", str(folder))
    return folder, out, json.loads((folder / "results.json").read_text())


def curves(folder: Path, seed: int) -> list[dict]:
    return json.loads((folder / f"seed-{seed}" / "results.json").read_text())["rows"]


def test_help():
    assert "python recipes/reproduce/early_stopping.py" in run("--help")


def test_the_table_and_the_results_hold_the_same_numbers(finished):
    _, out, found = finished
    assert found.keys() == {"config", "metrics", "rows", "seconds", "versions", "figures"}
    assert [row["seed"] for row in found["rows"]] == [0, 1, "mean"]
    for row in found["rows"]:
        (line,) = (line for line in out.splitlines() if line.startswith(f"│ {row['seed']} "))
        for value in list(row.values())[1:]:
            assert f" {value:.4g} " in line
    for name in ("test/loss", "test/acc", "test/loss_last", "test/acc_last"):
        assert found["metrics"][name] == fmean(row[name] for row in found["rows"][:2])


def test_the_runs_of_an_experiment_are_a_group(finished, grouped):
    folder, out, _ = finished
    names = [f"seed={seed}, {until}" for seed in (0, 1) for until in ("to the end", "until the stop")]
    assert grouped(folder, out) == {"train": names}


def test_the_interval_is_that_of_two_paired_differences(finished):
    _, out, found = finished
    for name in ("test/loss", "test/acc"):
        one, other = (row[name] - row[f"{name}_last"] for row in found["rows"][:2])
        half = 12.7062 * abs(one - other) / 2  # t(0.975, 1) times the standard error of a mean of two
        assert found["metrics"][f"{name}_difference"] == pytest.approx((one + other) / 2)
        assert found["metrics"][f"{name}_low"] == pytest.approx((one + other) / 2 - half, rel=1e-4)
        assert found["metrics"][f"{name}_high"] == pytest.approx((one + other) / 2 + half, rel=1e-4)
        assert f"{(one + other) / 2:+.4f} +- {half:.4f}" in out


def test_the_stop_is_where_the_curve_of_the_other_fit_says(finished):
    folder, _, found = finished
    assert found["metrics"]["difference_before_stop"] == 0
    for row in found["rows"][:2]:
        losses = [each["val/loss"] for each in curves(folder, row["seed"])]
        assert len(losses) == 12
        until_stop = losses[: row["stop"]]
        assert row["best"] == 1 + until_stop.index(min(until_stop))
        assert row["stop"] == row["best"] + 2 < 12


def test_the_lectures_claim_is_judged_by_the_intervals(finished):
    _, _, found = finished
    (claim,) = found["figures"]
    metrics = found["metrics"]
    better = [metrics["test/acc_low"] > 0, metrics["test/loss_high"] < 0]
    assert claim["verdict"] == ("holds" if all(better) else "holds in part" if any(better) else "does not hold")
    assert f"accuracy {100 * metrics['test/acc_difference']:+.1f} +- " in claim["measured"]
    assert claim["command"].endswith("early_stopping.py --seeds 2 --epochs 12 --patience 2")


def test_the_picture_is_there(finished):
    assert (finished[0] / "early_stopping.png").read_bytes().startswith(b"\x89PNG")


def test_resume_trains_only_the_seeds_that_are_missing(finished):
    folder, _, found = finished
    file = folder / "seed-1" / "results.json"
    untouched, before = (folder / "seed-0" / "results.json").stat().st_mtime_ns, curves(folder, 1)
    file.unlink()
    run(*ARGS, "--output", str(folder), "--resume")
    assert (folder / "seed-0" / "results.json").stat().st_mtime_ns == untouched
    assert curves(folder, 1) == before
    assert json.loads((folder / "results.json").read_text())["rows"] == found["rows"]
