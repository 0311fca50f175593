"""The part `folds` of the benchmark of tuning, on a small table."""

from argparse import Namespace

import numpy as np

from tests.benchmarks.tuning_bench import folds as bench


def test_a_table_is_trained_and_replayed(monkeypatch):
    monkeypatch.setattr(bench, "EPOCHS", 1)
    rows = bench.rows(Namespace(seed=0), divisions=2, repeats=2, configurations=2)
    assert [list(row) for row in rows] == [["name", "ours", "peer", "ratio", "low", "high", "goal", "ok"]] * 8
    names = [row["name"] for row in rows]
    assert "loss, 2 configurations x 5 folds: cost share (floor 0.900)" in names
    assert all(0.6 <= row["ours"] <= 1 for row in rows if "cost share" in row["name"])


def test_the_goals_can_be_missed_and_met():
    draws = np.random.default_rng(0)
    clear = np.arange(16.0)[:, None, None] + 0.1 * draws.normal(size=(16, 4, 5))
    cost, right = bench.compared("loss", clear, "min", 2, 20, 0)
    assert (cost["ours"], cost["ok"], right["ours"], right["ok"]) == (0.4375, True, 1.0, True)
    equal = draws.normal(size=(16, 4, 5))
    cost, _ = bench.compared("loss", equal, "min", 2, 20, 0)
    assert cost["ours"] > 0.5
    assert not cost["ok"]
