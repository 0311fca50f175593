"""The grid with everything on, as a user runs it, and the page that it leaves in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from wandb_workspaces.reports.v2 import BarPlot, LinePlot

from lightning_trainingkit.dashboards.panels import command_center
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.workspace import build_workspace
from tests.dashboards.browser import Page, open_browser

QUICK = ("--accelerator", "cpu", "--epochs", "2", "--passes", "2", "--members", "2")
RATES = ("0.0001", "0.001", "0.01", "0.03", "0.1", "1")
GRID = {f"lr={lr}, dropout={dropout}" for lr in RATES for dropout in ("0.1", "0.3")}
AVERAGES = {("eval", "one view"), ("tta", "shifts(1)"), ("mc-dropout", "2 masks"), ("ensemble", "best 2")}


@pytest.fixture(scope="module")
def center(tmp_path_factory, run_recipe):
    root = tmp_path_factory.mktemp("center")
    said = run_recipe("command_center.py", *QUICK, folder=root).stdout
    return root / "runs" / "command_center", said


def test_the_table_is_what_the_results_hold(center):
    folder, said = center
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["run"] for row in rows[:12]} == GRID
    assert {(row["averaging"], row["what"]) for row in rows[12:]} == AVERAGES
    for row in rows[12:]:
        assert re.search(rf"{row['averaging']} .*{row['test/acc']:.4g}.*{row['test/loss']:.4g}", said)
    assert said.rstrip().endswith("Center: trainingkit dashboard runs/command_center --open")


def test_each_training_and_each_average_is_a_run_of_one_group(center):
    runs, skipped = gather([center[0]])
    assert skipped == {}
    assert {run.name for run in runs if run.job_type == "train"} == GRID
    assert {(run.job_type, run.name) for run in runs if run.job_type != "train"} == AVERAGES
    assert Counter((run.project, run.group, run.state) for run in runs) == {
        ("trainingkit-digits", "command_center", "finished"): 16
    }


def test_a_resumed_grid_trains_what_is_missing_and_averages_into_the_same_runs(center, run_recipe, refused, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(center[0], folder)
    (folder / "grid" / "lr=0.1, dropout=0.3" / "results.json").unlink()
    said = run_recipe("command_center.py", *QUICK, "--resume", "--output", folder, folder=tmp_path).stdout
    assert [name for name in GRID if f"{name}: val/loss" in said] == ["lr=0.1, dropout=0.3"]
    before = [(run.id, run.state) for run in gather([folder])[0]]
    assert {state for _, state in before} == {"finished"}
    run_recipe("command_center.py", *QUICK, "--resume", "--output", folder, folder=tmp_path)
    assert sorted((run.id, run.state) for run in gather([folder])[0]) == sorted(before)
    said = refused("command_center.py", *QUICK, "--epochs", "3", "--resume", "--output", folder, folder=tmp_path)
    assert "the present options" in said


@pytest.mark.slow
def test_every_section_of_the_page_draws(center):
    browser = open_browser()
    try:
        page = Page(browser, (center[0] / "dashboard.html").as_uri())
        sections = page.js("return [...document.querySelectorAll('section h2')].map((h) => h.textContent)")
        assert sections == [section.title for section in command_center()]
        panels = page.js("return [...panels.keys()]")
        assert len(panels) >= 12
        for panel in panels:
            page.show(panel)
            drawn = "return panels.get(arguments[0]).figure.querySelectorAll(%s).length"
            assert page.js(drawn % "'path.js-line, .points path, .bars path, canvas, tbody tr'", panel) > 0, panel
        assert page.js("return view.data.hyperparameters") == ["lr", "dropout"]
        assert page.problems() == []
    finally:
        browser.quit()


def test_what_a_workspace_shows_is_in_the_runs(center):
    runs, _ = gather([center[0]])
    known = {name for run in runs for name in (*run.curves, *run.summary)}
    config = {name for run in runs for name in run.config}
    workspace = build_workspace("team", "digits", command_center(), ["lr", "dropout", "batch_size"])
    checked = set()
    for panel in (panel for section in workspace.sections for panel in section.panels):
        if isinstance(panel, LinePlot | BarPlot):
            names = {str(name) for name in (panel.y if isinstance(panel, LinePlot) else panel.metrics) or ()}
            assert names <= known, panel.title
            if isinstance(panel, LinePlot) and panel.metric_regex:
                assert [name for name in known if re.match(panel.metric_regex, name)]
            checked |= names
    assert checked >= {"train/loss", "val/acc", "test/acc_member", "test/ece"}
    text = json.dumps(workspace._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    training = next(run for run in runs if run.job_type == "train")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", training.source]
    summary = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    best = re.findall(r'"summary:([^"]+)"', text)
    assert best
    for name in best:
        assert re.search(rf"^  {re.escape(name)} ", summary, re.MULTILINE), name
    settings = re.findall(r'"(?:config|c):([^"]+?)(?:\.value)?"', text)
    settings = [name for name in settings if not name.startswith("check.value.")]  # verdicts, which this recipe lacks
    assert settings
    for name in settings:
        assert name in config, name
