"""The recipe as a user runs it, on a healthy module and on one fault."""

import json

import pytest

from lightning_trainingkit.dashboards.local import collect

pytestmark = pytest.mark.slow

FAULT = "two labels for one image"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run_recipe):
    root = tmp_path_factory.mktemp("check")
    arguments = ("--accelerator", "cpu", "--fault", "none", "--fault", FAULT)
    said = run_recipe("check.py", *arguments, folder=root).stdout
    return root / "runs" / "check", said


def test_the_table_is_what_the_results_hold(finished):
    folder, said = finished
    found = json.loads((folder / "results.json").read_text())
    assert found["metrics"] == {"modules": 2, "alarms": 1}
    none, fault = found["rows"]
    assert list(none.values()) == ["none", "pass", "pass", "pass", "none"]
    assert (fault["fault"], fault["step 2"], fault["first reason"]) == (FAULT, "fail", "two_labels")
    assert "two_labels" in said
    lines = json.loads((folder / FAULT / "results.json").read_text())["rows"]
    assert "The same input stands in the training set with two labels" in lines[1]["line"]


def test_the_command_center_shows_the_verdicts(finished, grouped):
    folder, said = finished
    assert grouped(folder, said) == {"check": ["none", FAULT]}
    runs = {run["name"]: run["checks"] for run in collect([folder])["runs"]}
    assert runs["none"].keys() == {"initial_loss", "small_sample", "learning_rate"}
    assert runs[FAULT]["small_sample"].startswith("fail. ")


def test_resume_checks_what_is_missing_alone(finished, run_recipe, refused, tmp_path):
    folder, _ = finished
    arguments = ("--accelerator", "cpu", "--fault", "none", "--output", folder, "--resume")
    before = (folder / "none" / "results.json").stat().st_mtime_ns
    run_recipe("check.py", *arguments, folder=tmp_path)
    assert (folder / "none" / "results.json").stat().st_mtime_ns == before
    assert "the present options" in refused("check.py", *arguments, "--seed", "1", folder=tmp_path)


def test_help_and_unknown_faults(refused, tmp_path):
    assert "invalid choice: 'rate'" in refused("check.py", "--fault", "rate", folder=tmp_path)
