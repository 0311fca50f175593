"""The benchmark of learning-rate finders: its trainings are Lightning's, and its rules are fastai's."""

import json
import math
from dataclasses import replace

import pytest

from tests.benchmarks.learning_rate_bench import fastai_rules
from tests.benchmarks.learning_rate_bench.jobs import Job, Results
from tests.benchmarks.learning_rate_bench.methods import OURS, RULES, Cell
from tests.benchmarks.learning_rate_bench.report import goals
from tests.benchmarks.learning_rate_bench.tasks import GRID, HALVES, TASKS
from tests.benchmarks.learning_rate_bench.training import accuracy, train
from tests.toy import difference, toy_trainer

TASK = TASKS["digits, MLP, SGD"]


def test_a_training_has_the_arithmetic_of_lightning():
    task, modules = replace(TASK, epochs=2), []
    ours = train(task, 3, 0.1, optimizer=lambda module: modules.append(module) or module.configure_optimizers())
    module = task.module(3, 0.1)
    toy_trainer(max_epochs=2).fit(module, task.loader())
    assert difference(module.state_dict(), modules[0].state_dict()) == 0
    assert accuracy(module, task) == ours.accuracy > 0.8


def test_a_training_that_diverges_scores_chance():
    found = train(TASK, 0, 1e6)
    assert not found.finite
    assert found.accuracy == TASK.chance == pytest.approx(0.1, abs=0.02)


def test_the_tasks_are_two_halves_with_both_optimizers():
    halves = [[task for task in TASKS.values() if task.half == half] for half in HALVES]
    assert [len(half) for half in halves] == [7, 7]
    assert all({task.optimizer for task in half} == {"SGD", "AdamW"} for half in halves)
    assert GRID[0] == 1e-5
    assert GRID[-1] == 10
    assert 1e-3 in GRID


@pytest.fixture(scope="module")
def curve():
    """Falls in a straight line from step 30 to step 70, and rises after it."""
    rates = [1e-7 * 10 ** (8 * step / 100) for step in range(100)]
    losses = [2.0 - 0.04 * min(max(step - 30, 0), 40) + 0.2 * max(step - 70, 0) for step in range(100)]
    return rates, losses


def test_the_rules_of_fastai(curve):
    rates, losses = curve
    place = {rule: fastai_rules.choose(rule, rates, losses) for rule in fastai_rules.RULES}
    assert {steps for _, steps in place.values()} == {100}
    assert 30 < rates.index(place["fastai, valley"][0]) < 75
    assert 45 < rates.index(place["fastai, steep"][0]) < 75
    assert place["fastai, minimum / 10"][0] * 10 == pytest.approx(rates[73], rel=0.5)


def test_a_range_test_that_ends_in_nan_or_diverges(curve):
    rates, losses = curve
    ended = fastai_rules.choose("fastai, steep", rates[:80], [*losses[:79], math.nan])
    assert ended == fastai_rules.choose("fastai, steep", rates, [*losses[:79], *[math.nan] * 21])
    assert fastai_rules.choose("fastai, steep", rates, [*losses[:50], *[1e4] * 50])[1] == 51
    assert fastai_rules.choose("fastai, steep", rates, [1.0, 1e4, *losses[2:]]) == (None, 2)


def test_results_survive_a_kill_and_forget_errors(tmp_path):
    job, failed = Job("train", TASK, 0, 0.1), Job("choose", TASK, 0, "Lightning")
    results = Results(tmp_path)
    results.add(job, {"accuracy": 0.9})
    results.add(failed, {"rate": None, "error": "no"})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('\n{"key": "half a li')
    again = Results(tmp_path)
    assert again[job] == {"accuracy": 0.9}
    assert again.missing([job, failed]) == [failed]
    again.add(failed, {"rate": 0.1})
    assert Results(tmp_path).missing([job, failed]) == []
    assert again.missing([Job("train", replace(TASK, epochs=1), 0, 0.1)])  # another training


def test_goals_are_missed_by_a_bad_finder_and_met_by_a_good_one():
    tasks = list(TASKS.values())[:2]

    def judged(regret, failed):
        return [
            Cell(method, task, seed, 0.1, regret if method == OURS else 1.0 + seed, failed, iterations=100)
            for method in (OURS, *RULES)
            for task in tasks
            for seed in range(2)
        ]

    assert all(row["ok"] for row in goals("all", judged(0.1, failed=False)))
    assert sum(not row["ok"] for row in goals("all", judged(3.0, failed=True))) == 4
    json.dumps(goals("all", judged(0.1, failed=False)))
