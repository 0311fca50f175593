"""Trials in real processes, forked from a small one: see ``trials_in_processes.py``."""

import json
from pathlib import Path

import pytest

from lightning_trainingkit.dashboards.read.gather import gather
from tests import process

QUICK = (
    "plain",
    "some_raise",
    "all_raise",
    "no_monitor",
    "dies_once",
    "dies_late",
    "always_dies",
    "diverges",
    "stops",
    "interrupted",
)


def run(folder, *scenarios):
    process.run(Path(__file__).with_name("trials_in_processes.py"), folder, *scenarios, folder=process.ROOT)
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(tmp_path_factory.mktemp("trials"), *QUICK)


def test_all_trials_of_a_study_run_in_their_own_processes(found):
    plain = found["plain"]
    assert (plain["error"], plain["counts"]["completed"], plain["counts"]["total"]) == ("", 3, 3)
    for result in plain["results"]:
        assert [*result["reports"]] == ["1", "2", "3"]
        assert result["value"] == min(result["reports"].values())
        assert result["outcome"]["epochs"] == 3
    lines = plain["printed"].splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("[3/3] trial ")
    assert "completed val/loss" in lines[-1]
    assert "last.ckpt" not in plain["files"]  # nobody needs them any more


def test_a_trial_that_raises_is_failed_with_its_traceback(found):
    results = found["some_raise"]["results"]
    assert [each["state"] for each in results] == ["failed", "completed", "completed"]
    assert 'raise ArithmeticError("nothing works")' in results[0]["error"]
    assert "trial 0 failed (lr=0.1): ArithmeticError: nothing works" in found["some_raise"]["printed"]


def test_where_all_trials_raise_the_search_stops_with_the_first_error(found):
    error = found["all_raise"]["error"]
    assert error.startswith("RuntimeError: `module` must train, got 3 failed trials and no finished one.")
    assert error.rstrip().endswith("ArithmeticError: nothing works")


def test_a_monitor_that_is_never_logged_ends_the_search_in_its_first_validation(found):
    case = found["no_monitor"]
    assert "must be a metric that validation logs, got 'val_acc'. There are: val/acc, val/loss" in case["error"]
    assert case["counts"]["waiting"] == 3  # the trial was given back
    assert case["later"]["completed"] == 3


def test_a_killed_trial_resumes_and_ends_as_if_it_had_not_been_killed(found):
    (result,), (whole,) = found["dies_once"]["results"], found["dies_once"]["whole"]
    assert (result["attempts"], result["outcome"]["resumed"], result["outcome"]["epochs"]) == (2, 2, 1)
    assert result["reports"] == whole["reports"]
    assert result["value"] == whole["value"]


def test_a_trial_that_dies_after_its_last_checkpoint_trains_no_more(found):
    (result,) = found["dies_late"]["results"]
    outcome = result["outcome"]
    assert (result["state"], outcome["resumed"], outcome["epochs"]) == ("completed", 3, 0)
    assert outcome["metrics"]["val/loss"] == result["value"]
    assert Path(outcome["best"]).is_file()
    assert "attempt-0" in outcome["best"]


def test_a_trial_that_always_dies_is_failed_with_its_last_words(found):
    (result,) = found["always_dies"]["results"]
    assert (result["state"], result["attempts"]) == ("failed", 2)
    assert "killed by SIGKILL" in result["error"]
    assert "my last words" in result["error"]


def test_a_trial_that_diverges_is_ended_at_once(found):
    (result,) = found["diverges"]["results"]
    assert (result["state"], result["outcome"]["diverged"], len(result["reports"])) == ("pruned", True, 1)
    assert "[1/1] trial 0 diverged (lr=" in found["diverges"]["printed"]


def test_no_trial_starts_after_the_stop(found):
    assert found["stops"]["counts"]["completed"] == 2
    assert found["stops"]["counts"]["waiting"] == 3


def check_interrupted(first, second):
    assert first["error"].startswith("KeyboardInterrupt")
    assert first["counts"]["waiting"] == 2
    assert second["counts"]["completed"] == 2
    assert second["results"][0]["attempts"] == 2
    assert second["results"][0]["outcome"]["resumed"] >= 1


def test_ctrl_c_gives_trials_back_and_the_same_command_goes_on(found):
    check_interrupted(**found["interrupted"])


@pytest.mark.slow
def test_wandb_runs_end_as_finished_failed_or_killed(tmp_path):
    check_interrupted(**run(tmp_path, "recorded")["recorded"])
    runs = {(each.group, each.name, each.config["trial.attempt"]): each for each in gather([tmp_path])[0]}
    states = sorted((group, attempt, each.state) for (group, _, attempt), each in runs.items())
    assert states == [
        ("interrupted", 0, "finished"),
        ("interrupted", 0, "killed"),
        ("interrupted", 1, "finished"),
        ("raises", 0, "failed"),
    ]
    (raised,) = [each for each in runs.values() if each.group == "raises"]
    assert (raised.name, raised.config["trial.ticket"], raised.config["trial.study"]) == ("lr=0.01", 0, "raises")
    assert {path.name for path in tmp_path.glob("interrupted/*/*/*.ckpt")} == {"best.ckpt"}
