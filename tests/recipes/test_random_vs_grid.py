"""The recipe as a user runs it, on few repeats."""

import json

import pytest


@pytest.mark.slow
def test_the_table_is_what_the_results_hold_and_a_resumed_run_trains_nothing_again(tmp_path, run_recipe, grouped):
    folder = tmp_path / "runs" / "random_vs_grid"
    options = ("--accelerator", "cpu", "--repeats", "2", "--epochs", "1")
    said = run_recipe("random_vs_grid.py", *options, folder=tmp_path).stdout
    found = json.loads((folder / "results.json").read_text())
    assert {row["points"]: row["rates tried"] for row in found["rows"]} == {"grid": 3, "random": 9, "quasi-random": 9}
    for row in found["rows"]:
        best = []
        for repeat in (0, 1):
            tried = json.loads((folder / f"repeat-{repeat}" / "results.json").read_text())["metrics"][row["points"]]
            assert len(tried) == 9
            best.append(min(each["val/loss"] for each in tried))
        assert row["val/loss"] == pytest.approx(sum(best) / 2)
        assert f"{row['val/loss']:.4g}" in said
    (claim,) = found["figures"]
    assert (claim["figure"], claim["verdict"] in ("holds", "holds in part", "does not hold")) == (7, True)
    assert (folder / "random_vs_grid.png").read_bytes().startswith(b"\x89PNG")
    assert grouped(folder, said) == {"search": ["grid", "quasi-random", "random"]}

    trained = (folder / "repeat-1" / "results.json").stat().st_mtime_ns
    run_recipe("random_vs_grid.py", *options, "--output", folder, "--resume", folder=tmp_path)
    assert (folder / "repeat-1" / "results.json").stat().st_mtime_ns == trained
    assert json.loads((folder / "results.json").read_text())["rows"] == found["rows"]


def test_one_repeat_has_no_interval(refused, tmp_path):
    assert "must be at least 2, got 1" in refused("random_vs_grid.py", "--repeats", "1", folder=tmp_path)
