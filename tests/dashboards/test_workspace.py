import json
import os
import re
import socket
import subprocess
import sys

import pytest

from lightning_trainingkit.dashboards.panels import Curves, Gap, Scores, command_center
from lightning_trainingkit.dashboards.workspace import build_workspace, save_workspace
from tests.dashboards.wandb_server import CLI, account, client, serving

SAVE = ["workspace", "--entity", "team", "--project", "digits"]
SETTINGS = ["lr", "weight_decay", "batch_size", "optimizer", "schedule"]  # the command's own
REREAD = """
import sys
from wandb_workspaces.workspaces import Workspace
found = Workspace.from_url(sys.argv[1])
print(found.name, found._internal_id, found.auto_generate_panels, sep="\\n")
print(found._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
"""


def spec_of(workspace):
    return json.loads(workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def panels_of(spec):
    return [panel for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]


def without_ids(spec):
    """W&B's package draws a new id for each panel that it builds."""
    return re.sub(r'"__id__": "\w+"', "", json.dumps(spec))


@pytest.fixture
def built(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)

    def connect(*args):
        raise AssertionError("building asks the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return build_workspace("team", "digits", command_center(), SETTINGS)


def test_building_needs_no_account_and_no_network(built):
    titles = [section.title for section in command_center() if section.title != "Checks"]  # columns, not panels
    assert [section.name for section in built.sections] == titles
    assert all(section.panels for section in built.sections)
    columns = built.runset_settings.pinned_columns
    assert columns[:2] == ["run:displayName", "config:check.value.initial_loss"]
    assert built.name.isascii()  # W&B takes no emoji in a name


def test_a_target_must_say_which_end_is_the_better_one():
    with pytest.raises(ValueError, match=r"Take val/width\.max or val/width\.min"):
        build_workspace("team", "digits", command_center("val/width"), SETTINGS)
    assert '"val/width.max"' in json.dumps(
        spec_of(build_workspace("team", "digits", command_center("val/width.max"), SETTINGS))
    ).replace("summary:", "")


def test_panels_avoid_wandb_traps(built):
    spec = spec_of(built)
    settings = spec["section"]["settings"]
    assert settings["maxRuns"] == 50
    assert settings["shouldAutoGeneratePanels"] is False
    assert settings["xAxis"] == "trainer/global_step"
    lines = {
        panel["config"]["chartTitle"]: panel["config"]
        for panel in panels_of(spec)
        if panel["viewType"] == "Run History Line Plot"
    }
    assert all(each["xAxis"] == "trainer/global_step" and each["limit"] == 50 for each in lines.values())
    for metric in ("train/loss", "val/loss", "train/acc", "val/acc"):  # noisy: real values and their moving average
        assert lines[metric]["smoothingType"] == "average"
        assert lines[metric]["smoothingWeight"] > 0
        assert lines[metric]["showOriginalAfterSmoothing"]
        grouped = lines[f"{metric}: mean and deviation by group"]
        assert [grouped[name] for name in ("groupBy", "groupAgg", "groupArea")] == ["group", "mean", "stddev"]
    assert lines["lr"]["useMetricRegex"]
    assert re.match(lines["lr"]["metricRegex"], "lr-AdamW/pg1")
    assert not re.match(lines["lr"]["metricRegex"], "val/lr-x")
    assert lines["Training above validation"]["expressions"] == ["${train/acc} - ${val/acc}"]


def test_only_metrics_of_the_command_center_are_named(built):
    found = set()
    for panel in panels_of(spec_of(built)):
        config = panel["config"]
        found |= set(config.get("metrics", ()))
        if "targetKey" in config:
            found.add(config["targetKey"])
        for axis in (*config.get("columns", ()), {"accessor": config.get("yAxis", "")}):
            found |= {axis["accessor"].removeprefix("summary:")} if axis["accessor"].startswith("summary:") else set()
    panels = [panel for section in command_center() for panel in section.panels]
    named = {panel.metric for panel in panels if isinstance(panel, Curves) and "*" not in panel.metric}
    named |= {name for panel in panels if isinstance(panel, Gap) for name in (panel.one, panel.other)}
    named |= {name for panel in panels if isinstance(panel, Scores) for name in panel.metrics}
    assert found == named | {"val/loss.min"}  # where W&B keeps the best of what CommandCenter defines


@pytest.mark.parametrize(
    ("target", "best"), [("val/acc", "val/acc.max"), ("val/loss", "val/loss.min"), ("val/width.max", "val/width.max")]
)
def test_runs_are_compared_by_their_best(target, best):
    words = json.dumps(spec_of(build_workspace("team", "digits", command_center(target), ["lr"])))
    assert words.count(f'"summary:{best}"') == 2  # the parallel coordinates and the dots
    assert f'"targetKey": "{best}"' in words


def test_saving_again_updates_the_same_view():
    with serving() as site:
        first = client(CLI, *SAVE, env=account(site.url))
        assert (first.returncode, first.stderr) == (0, "")
        address = first.stdout.strip()
        assert address == f"{site.url}/team/digits?nw=trainingkit"
        (view,) = site.views.values()
        expected = spec_of(build_workspace("team", "digits", command_center(), SETTINGS))
        assert without_ids(json.loads(view["spec"])) == without_ids(expected)

        read = client(REREAD, address, env=account(site.url))
        assert read.returncode == 0, read.stderr
        *described, spec = read.stdout.splitlines()
        assert described == ["Command center", view["id"], "False"]
        assert json.loads(spec) == json.loads(view["spec"])  # nothing is lost on the way, ids among them

        # In offline mode too, and with another target: a project has one command center.
        again = client(CLI, *SAVE, "--target", "val/acc", env=account(site.url, WANDB_MODE="offline"))
        assert (again.returncode, again.stdout.strip()) == (0, address), again.stderr
        assert list(site.views) == [view["id"]]
        assert "val/acc.max" in site.views[view["id"]]["spec"]
        saved = [given for name, given in site.asked if name == "UpsertView2"]
        assert ["id" in given for given in saved] == [False, True]
        assert saved[1]["id"] == view["id"]
        assert saved[1]["name"] == saved[0]["name"]


@pytest.mark.slow
def test_what_wandb_refuses_is_said_in_a_line():
    with serving() as site:
        missing = client(CLI, *SAVE[:-1], "missing", env=account(site.url))
        site.refused = {"UpsertView2": 403}
        forbidden = client(CLI, *SAVE, env=account(site.url))
        site.refused = {"Viewer": 401}
        unknown = client(CLI, *SAVE, env=account(site.url))
        assert not site.views
    # Nobody answers there now. Whoever tells W&B's client to be less patient is heard.
    gone = client(CLI, *SAVE, env=account(site.url, WANDB__GRAPHQL_RETRY_MAX="1"))
    for run, words in (
        (missing, "team/missing: Project `team/missing` not found. Do you have access to this project. Check"),
        (forbidden, "team/digits: permission denied. Check the names, the network and the account (wandb login)."),
        (unknown, f"Failed to verify credentials with {site.url}: permission denied."),
        (gone, "connection refused"),
    ):
        assert (run.returncode, run.stdout) == (1, "")
        last = run.stderr.splitlines()[-1]
        assert last.startswith(f"trainingkit workspace: W&B at {site.url} did not save the command center of team/")
        assert words in last
        assert "Traceback" not in run.stderr


def test_saving_asks_nobody_for_a_key():
    pty = pytest.importorskip("pty")
    here, there = pty.openpty()  # in a terminal W&B's client would ask
    command = [sys.executable, "-c", CLI, *SAVE]
    with serving() as site:
        env = account(site.url, key="")
        run = subprocess.run(command, env=env, stdin=there, stdout=there, stderr=there, timeout=60, check=False)
        assert not site.asked
    os.close(there)
    said = os.read(here, 10_000).decode()
    os.close(here)
    assert run.returncode == 1
    assert said.startswith(
        "trainingkit workspace: `WANDB_API_KEY` must be set to save the command center of team/digits"
    )
    assert said.rstrip().endswith("got none. Or run, once: wandb login.")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("entity", "project"), [("", "digits"), ("team", "team/digits"), ("team", "digits?nw=x")])
def test_names_are_checked(entity, project):
    with pytest.raises(ValueError, match=r"`(entity|project)` must be the name of a W&B"):
        save_workspace(entity, project, command_center(), SETTINGS)
