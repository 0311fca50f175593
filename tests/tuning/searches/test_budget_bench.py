"""The arithmetic of the part `budget` of the benchmark of tuning."""

import pytest

from tests.benchmarks.tuning_bench.budget_verdict import Scored, comparisons


def compared(ours, plain, random, epochs=200.0):
    """The rows for one task, from accuracies of each repeat."""
    found = {
        "seven steps": [Scored(each, 1 - each, epochs) for each in ours],
        "plain Optuna": [Scored(each, 1 - each, 200) for each in plain],
        "random trials": [Scored(each, 1 - each, 1000) for each in random],
    }
    return {row["name"].removeprefix("task: "): row for row in comparisons({"task": found})}


def test_a_search_that_is_good_enough_meets_all_goals():
    rows = compared([0.8, 0.802], [0.79, 0.794], [0.8, 0.8])
    assert all(row["ok"] for row in rows.values())
    share = rows["accuracy, share of the random trials'"]
    assert (share["ours"], share["peer"], share["ratio"], share["goal"]) == (0.801, 0.8, 1.0012, 0.99)
    assert rows["points above plain Optuna"]["ratio"] == pytest.approx(0.9)
    assert rows["mean of the tasks: points above plain Optuna"]["ours"] == pytest.approx(0.9)
    assert rows["loss, share of plain Optuna's"]["goal"] is None


@pytest.mark.parametrize(
    ("numbers", "missed"),
    [
        (([0.79, 0.79], [0.78, 0.78], [0.8, 0.8]), {"accuracy, share of the random trials'"}),
        (([0.8, 0.8], [0.7, 0.7], [0.8, 0.8], 201.0), {"epochs, share of the random trials' (worst)"}),
        (
            ([0.8, 0.8], [0.81, 0.81], [0.8, 0.8]),
            {"points above plain Optuna", "mean of the tasks: points above plain Optuna"},
        ),
        (([0.8, 0.81], [0.82, 0.8], [0.8, 0.8]), {"mean of the tasks: points above plain Optuna"}),
    ],
    ids=["accuracy", "epochs", "significantly worse", "worse in the mean"],
)
def test_a_miss_is_told(numbers, missed):
    assert {name for name, row in compared(*numbers).items() if not row["ok"]} == missed
