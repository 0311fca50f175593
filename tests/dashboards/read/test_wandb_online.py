import json
import math
import pickle

import numpy as np
import pytest

from lightning_trainingkit.dashboards.read.wandb_online import asking, read_project
from tests.dashboards.wandb_server import CLI, account, client, serving

READ = """
import pickle, sys
from lightning_trainingkit.dashboards.read.wandb_online import read_project
with open(sys.argv[2], "wb") as file:
    pickle.dump(read_project(sys.argv[1]), file)
"""
STEP = "trainer/global_step"
MORE_THAN_A_PAGE = 1500


def stored(name, rows, **changes):
    """A run as W&B's server has it; config and summary as its own client uploads them."""
    plain = {"commit": None, "description": None, "notes": None, "sweepName": None, "readOnly": False}
    return {
        **plain,
        "id": f"id of {name}",
        "name": name,
        "displayName": None,
        "tags": [],
        "state": "running",
        "group": None,
        "jobType": None,
        "config": "{}",
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "systemMetrics": "{}",
        "summaryMetrics": "{}",
        "historyLineCount": len(rows),
        "historyKeys": {},
        "user": {"name": "me", "username": "me"},
        "rows": rows,
        **changes,
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    accuracy = [0.1, 0.9, math.nan, "NaN", "Infinity"]  # as a bare word and as W&B writes it
    whole = stored(
        "whole",
        [{"_step": i, "_runtime": i, STEP: 10 * i, "val/acc": accuracy[i], "bins": {"values": []}} for i in range(5)],
        displayName="lr=0.1",
        group="grid",
        jobType="train",
        tags=["a", "b"],
        state="finished",
        config=json.dumps({"lr": {"value": 0.1}, "net": {"value": {"width": 3}}, "_wandb": {"value": {"t": {}}}}),
        summaryMetrics=json.dumps({"val/acc": {"max": 0.9}, "test/acc": 0.8, "_runtime": 4.5, "bins": {"values": []}}),
    )
    rows = [{"_step": i, "train/loss": 1.0 / (i + 1)} for i in range(MORE_THAN_A_PAGE)]
    path = tmp_path_factory.mktemp("online") / "records"
    with serving() as site:
        site.runs = [whole, stored("long", rows, state="crashed"), stored("new", [], state="pending")]
        run = client(READ, "team/digits", path, env=account(site.url))
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
    return pickle.loads(path.read_bytes())


def test_a_run_is_read_whole(records):
    run = records[0]
    assert (run.id, run.name, run.project, run.group, run.job_type) == ("whole", "lr=0.1", "digits", "grid", "train")
    assert (run.tags, run.state, run.seconds, run.started) == (["a", "b"], "finished", 4.5, 1767225600.0)
    assert run.config == {"lr": 0.1, "net.width": 3}
    assert run.summary == {"val/acc": 0.9, "test/acc": 0.8}
    assert run.goals == {"val/acc": "max"}
    assert list(run.curves) == ["val/acc"]
    np.testing.assert_array_equal(run.curves["val/acc"].steps, [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(run.curves["val/acc"].values, [0.1, 0.9, math.nan, math.nan, math.inf])
    assert run.source.endswith("/team/digits/runs/whole")


def test_all_runs_and_all_rows_are_read(records):
    assert [run.id for run in records] == ["whole", "long", "new"]
    long, new = records[1:]
    np.testing.assert_array_equal(long.curves["train/loss"].steps, np.arange(MORE_THAN_A_PAGE))
    assert (long.name, long.state, long.group, long.config) == ("long", "killed", "", {})
    assert (new.state, new.curves) == ("running", {})


def test_what_is_wrong_is_said_in_a_line(tmp_path):
    command = ["dashboard", "--output", tmp_path / "page.html", "--online"]
    with serving() as site:
        missing = client(CLI, *command, "team/missing", env=account(site.url))
        alone = client(CLI, *command, "team/digits", env=account(site.url, key=""))
        site.runs, site.refused = [stored("whole", [{"_step": 0}])], {"RunParquetHistory": 403}
        broken = client(CLI, *command, "team/digits", env=account(site.url))
    for run, words in (
        (missing, f"W&B at {site.url} did not read the runs of team/missing: Could not find project missing. Check"),
        (alone, f"`WANDB_API_KEY` must be set to read the runs of team/digits at {site.url}, got none."),
        (broken, "permission denied"),
    ):
        assert run.returncode == 1
        assert run.stderr.startswith("trainingkit dashboard: ")
        assert words in run.stderr
        assert run.stderr.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("path", ["digits", "team/", "/digits", "https://wandb.ai/team/digits"])
def test_paths_are_checked(path):
    with pytest.raises(ValueError, match=r"`--online` must be ENTITY/PROJECT, got"):
        read_project(path)


def test_patience_is_put_back(monkeypatch):
    from wandb.sdk import wandb_setup

    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    settings = wandb_setup.singleton().settings
    before = settings.model_dump()

    def fail():
        with asking("look"):
            assert settings.x_graphql_retry_max == 4
            raise RuntimeError("no\nluck.")

    with pytest.raises(ValueError, match=r"did not look: no luck\. Check the names"):
        fail()
    assert settings.model_dump() == before
