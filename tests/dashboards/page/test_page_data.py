import json
import math
import time

import numpy as np
import pytest

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render
from lightning_trainingkit.dashboards.panels import Curves, Gap, Scores, command_center
from lightning_trainingkit.dashboards.read.record import Curve
from tests.dashboards.made import grid, plain, run


def kinds(data):
    return {section["title"]: [panel["kind"] for panel in section["panels"]] for section in data["sections"]}


def test_panels_without_anything_to_show_are_left_out():
    data = page_data(grid(), command_center())
    assert kinds(data) == {
        "Loss": ["curves", "curves"],
        "Accuracy": ["curves", "curves", "gap"],
        "Learning rate": ["curves"],
        "Checks": ["checks"],
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
        "Checks": ["checks"],
        "Hyperparameters": [],
        "Averaging": [],
        "Runs": ["table"],
        "Other metrics": ["curves"],
    }


def center(runs, target="val_loss"):
    names = {name for run in runs for name in (*run.curves, *run.summary)}
    return page_data(runs, command_center(target, names), target)


def test_a_plain_project_has_all_sections():
    data = center(plain())
    titles = {section["title"]: [panel["title"] for panel in section["panels"]] for section in data["sections"]}
    assert titles == {
        "Loss": ["train_loss_epoch", "train_loss_step", "val_loss"],
        "Accuracy": ["train_acc", "val_acc", "Training above validation"],
        "Learning rate": ["lr-SGD"],
        "Checks": ["Verdicts"],
        "Hyperparameters": ["All settings of each run", "What each setting explains", "One dot a run"],
        "Test": ["Test accuracy", "Test loss"],
        "Runs": ["All runs"],
    }
    assert data["hyperparameters"] == ["trainer.seed"]
    assert data["better"] == "min"
    assert data["scores"] == ["val_acc", "test_acc"]
    for made, each in zip(plain(), data["runs"], strict=True):
        assert each["scores"] == {"val_acc": made.curves["val_acc"].values.max(), "test_acc": made.summary["test_acc"]}
        assert set(each["curves"]) == set(made.curves)


def test_a_section_without_panels_says_what_is_missing():
    data = page_data([run(1, curves={}, summary={})], command_center("val_loss", ()), "val_loss")
    assert {section["title"]: section["empty"] for section in data["sections"] if not section["panels"]} == {
        "Loss": "No run has logged a loss, such as train_loss or val_loss.",
        "Accuracy": "No run has logged a score, such as val_acc.",
        "Learning rate": "No run has logged a learning rate. Lightning's LearningRateMonitor logs it.",
        "Checks": "No run has a training loss to judge, or a verdict of HealthReport or `trainingkit check --wandb`.",
        "Hyperparameters": "No setting that may have an effect differs between the runs.",
        "Test": "No run has logged a score or a loss with `test` in its name, such as test_acc.",
    }
    runs = [run(n, lr=0.1 * n, curves={}) for n in (1, 2)]
    (section,) = (each for each in center(runs)["sections"] if each["title"] == "Hyperparameters")
    assert section["empty"] == "No run has logged val_loss."
    assert {section["empty"] for section in page_data([], command_center())["sections"]} == {"No runs yet."}


def test_rates_of_parameter_groups_are_drawn_once_where_they_are_equal_in_all_runs():
    runs = grid()
    for n, each in enumerate(runs):
        rate = each.curves.pop("lr-SGD")
        for group in range(1, 5):
            factor = [1, 1, 10, 1 + (n == 3)][group - 1]
            each.curves[f"lr-SGD/pg{group}"] = Curve(rate.steps, rate.values * factor)
    for data in (center(runs, "val/loss"), page_data(runs, command_center())):
        (section,) = (each for each in data["sections"] if each["title"] == "Learning rate")
        found = [(panel["id"], panel["title"], panel["metric"], panel["log_y"]) for panel in section["panels"]]
        assert [each[1:3] for each in found] == [
            ("lr-SGD/pg1, equal to pg2", "lr-SGD/pg1"),
            ("lr-SGD/pg3", "lr-SGD/pg3"),
            ("lr-SGD/pg4", "lr-SGD/pg4"),
        ]
        assert found[0][0] == "curves lr-SGD/pg1"
        assert "lr-SGD/pg2" not in data["runs"][0]["curves"]
        assert data["sections"][-1]["title"] == "Runs"  # what is drawn with another is not shown elsewhere
    assert found[0][3] is (center(runs, "val/loss")["sections"][2]["panels"][0]["log_y"])


def test_learning_rates_have_a_logarithmic_axis_unless_one_is_zero():
    def log_y(runs):
        return center(runs)["sections"][2]["panels"][0]["log_y"]

    runs = plain()
    assert log_y(runs)
    runs[1].curves["lr-SGD"].values[0] = 0.0  # warm-up
    assert not log_y(runs)


def test_no_metric_is_shown_twice_and_a_test_of_every_epoch_is_a_curve():
    runs = plain()
    for each in runs:
        seen = each.curves["val_acc"]
        each.curves["grad_norm"] = seen
        each.curves["test_acc"] = Curve(seen.steps[-1:], seen.values[-1:])
        each.curves["test_entropy"] = Curve(np.array([7.0, 7.0]), np.array([0.1, 0.2]))
    assert kinds(center(runs))["Other metrics"] == ["curves"]
    runs[0].curves["test_acc"] = runs[0].curves["val_acc"]
    data = center(runs)
    shown = [panel["metric"] for each in data["sections"] for panel in each["panels"] if panel["kind"] == "curves"]
    assert sorted(shown) == sorted({*runs[0].curves, "test_acc"} - {"test_entropy"})
    assert [panel["metric"] for panel in data["sections"][-1]["panels"]] == ["grad_norm", "test_acc"]


def test_many_and_long_names_take_no_long_time():
    made = run(1)
    for kind in ("val_acc{}", "train_acc{}", "lr/group{}", "test_f{}", "AaBb" * 2_000 + "{}"):
        made.curves |= {kind.format(number): Curve(np.arange(3.0), np.ones(3)) for number in range(400)}
    made.config |= {("run" * 5_000 + ".") * 3 + "x": 1, "run" * 5_000: 2}
    start = time.perf_counter()
    data = center([made, run(2)], "val/loss")
    assert time.perf_counter() - start < 40  # in fact 1 s; without bounds on names more than a minute
    assert len(data["sections"][2]["panels"]) == 2  # all those rates are equal


def test_names_with_signs_of_patterns_are_names():
    runs = plain()
    for each in runs:
        for name in ("val_acc[0]", "val_f1*", "val_f1*_macro", "val_?"):
            each.curves[name] = each.curves["val_acc"]
    data = center(runs)
    shown = [panel["metric"] for each in data["sections"] for panel in each["panels"] if panel["kind"] == "curves"]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(runs[0].curves)


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
    assert "folder" not in data["settings"]  # it only tells the runs apart
    assert "versions.torch" in data["settings"]


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
