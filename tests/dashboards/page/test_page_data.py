import json
import math

import pytest

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render
from lightning_trainingkit.dashboards.panels import Curves, Gap, Scores, command_center
from tests.dashboards.made import grid, run


def kinds(data):
    return {section["title"]: [panel["kind"] for panel in section["panels"]] for section in data["sections"]}


def test_panels_without_anything_to_show_are_left_out():
    data = page_data(grid(), command_center())
    assert kinds(data) == {
        "Loss": ["curves", "curves"],
        "Accuracy": ["curves", "curves", "gap"],
        "Learning rate": ["curves"],
        "Hyperparameters": ["parallel", "importance", "dots"],
        "Averaging": ["scores", "scores", "scores"],
        "Runs": ["table"],
    }
    runs = grid()
    for each in runs:
        del each.curves["train/acc"], each.curves["lr-SGD"]
        each.summary.clear()
        each.config = {"lr": 0.1}
        each.curves["mine"] = each.curves["val/loss"]
    assert kinds(page_data(runs, command_center())) == {
        "Loss": ["curves", "curves"],
        "Accuracy": ["curves"],
        "Learning rate": [],
        "Hyperparameters": [],
        "Averaging": [],
        "Runs": ["table"],
        "Other metrics": ["curves"],
    }


def test_hyperparameters_are_settings_that_differ_and_may_have_an_effect():
    runs = grid()
    for n, each in enumerate(runs):
        each.config |= {
            "optimizers.0.lr": each.config["lr"],  # a copy
            "same": 1,
            "folder": f"/runs/{n}",
            "versions.torch": f"2.{n % 2}",
            "flag": n % 2 == 0,
            "rare": 3 if n == 5 else None,
        }
    runs[0].config["only here"] = 1
    data = page_data(runs, command_center())
    assert data["hyperparameters"] == ["lr", "flag", "rare", "only here", "optimizer", "weight_decay"]
    assert "same" not in data["settings"]
    assert {"folder", "versions.torch"} <= set(data["settings"])


def test_an_evaluation_beside_trainings_adds_no_hyperparameter():
    trainings = grid()
    for each in trainings:
        each.config["model"] = "net"
    trainings[0].config["clip"] = 1.0
    data = page_data(trainings, command_center())
    for number, kind in enumerate(("tta", "ensemble")):
        trainings.append(
            run(50 + number, job_type=kind, curves={}, config={"averaging": kind}, summary={"test/acc": 0.9})
        )
    beside = page_data(trainings, command_center())
    assert beside["hyperparameters"] == data["hyperparameters"]
    assert set(beside["settings"]) == {*data["settings"], "averaging"}
    assert "model" not in beside["settings"]
    assert "clip" in beside["settings"]


def test_which_end_of_a_target_is_the_better_one_is_never_guessed():
    runs = grid()
    for each in runs:
        each.curves["val/width"] = each.curves["val/acc"]
    with pytest.raises(ValueError, match="`--better` must be min or max where no run says which end of val/width"):
        page_data(runs, command_center("val/width"), "val/width")
    assert page_data(runs, command_center("val/width"), "val/width", better="max")["better"] == "max"
    runs[3].goals["val/width"] = "max"
    data = page_data(runs, command_center("val/width"), "val/width")
    assert data["better"] == "max"
    assert [panel["title"] for panel in data["sections"][-1]["panels"]] == ["val/width"]


def test_an_axis_begins_logarithmic_where_that_shows_all():
    runs = grid()
    runs[3].curves["val/loss"].values[2] = -0.1
    runs[4].curves["train/loss"].values[2] = math.nan
    (section,) = (each for each in page_data(runs, command_center())["sections"] if each["title"] == "Loss")
    assert {panel["metric"]: panel["log_y"] for panel in section["panels"]} == {"train/loss": True, "val/loss": False}


def test_best_follows_the_goal_and_skips_what_is_no_number():
    runs = grid()
    runs[0].curves["val/loss"].values[:] = math.nan
    runs[1].curves["val/loss"].values[0] = -math.inf
    del runs[2].curves["val/loss"]
    runs[2].summary["val/loss"] = 0.25
    data = page_data(runs, command_center())
    assert data["better"] == "min"
    assert data["runs"][0]["best"] is None
    assert data["runs"][1]["best"] == pytest.approx(runs[1].curves["val/loss"].values[1:].min())
    assert data["runs"][2]["best"] == 0.25
    data = page_data(runs, command_center("val/acc"), "val/acc")
    assert data["better"] == "max"
    assert data["runs"][0]["best"] == pytest.approx(runs[0].curves["val/acc"].values.max())


def test_unnamed_runs_are_named_by_what_differs():
    runs = [run(n, lr, id=f"x{n}", name=f"x{n}") for n, lr in enumerate([0.1, 0.2, 0.3])]
    names = [each["name"] for each in page_data(runs, command_center())["runs"]]
    assert names == [
        "lr=0.1, optimizer=SGD, weight_decay=0.0",
        "lr=0.2, optimizer=SGD, weight_decay=0.1",
        "lr=0.3, optimizer=AdamW, weight_decay=0.0",
    ]


def test_many_long_curves_stay_small():
    few, many = (page_data([run(n, steps=20_000) for n in range(count)], command_center()) for count in (2, 150))
    sizes = [len(json.dumps(data)) / len(data["runs"]) for data in (few, many)]
    assert sizes[0] < 160_000
    assert sizes[1] < 0.9 * sizes[0]


def test_the_page_is_whole_and_deterministic_but_for_its_time():
    data = page_data(grid(), command_center(), skipped={"a": "</script>"})
    page = render(data, "<b>title</b>")
    assert page.count("</script>") == 3
    assert "<b>title" not in page
    assert "connect-src 'none'" in page
    assert "http-equiv" in page
    assert len(page) < 7e6


def test_what_the_center_names_is_named_once():
    panels = [panel for section in command_center() for panel in section.panels]
    assert len(set(panels)) == len(panels)
    assert {type(panel) for panel in panels} >= {Curves, Gap, Scores}
