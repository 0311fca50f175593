import numpy as np
import pytest

from lightning_trainingkit.dashboards.read.record import Curve, Record
from lightning_trainingkit.dashboards.target import (
    best_value,
    better_end,
    check_target,
    default_target,
    table_scores,
)


def run(*names, summary=(), goals=None, **monitors):
    """A run that has logged ``names``, and whose callbacks monitor what is given."""
    curves = {name: Curve(np.arange(3.0), np.array([0.5, 0.2, 0.4])) for name in names}
    config = {f"callbacks.{callback.replace('_', '-')}.monitor": name for callback, name in monitors.items()}
    return Record("x", config=config, goals=goals or {}, curves=curves, summary=dict.fromkeys(summary, 0.7))


@pytest.mark.parametrize(
    ("runs", "target"),
    [
        ([], "val/loss"),
        ([run()], "val/loss"),
        ([run("val_loss", "val_acc", EarlyStopping="val_acc")], "val_acc"),
        ([run("val_loss", "val_f1", ModelCheckpoint_2="val_f1", ModelCheckpoint=None)], "val_f1"),
        # The monitor that most runs name, though another one was logged more often.
        ([run("a", "b", EarlyStopping="a"), run("b", BestCheckpoint="b"), run("b", X="b"), run("a")], "b"),
        ([run("a", "b", EarlyStopping="a"), run("b", ModelCheckpoint="b")], "b"),  # in a tie the one more often logged
        ([run("val_loss_step", "val_loss_epoch", EarlyStopping="val_loss")], "val_loss"),
        ([run("val_acc", "train_loss", EarlyStopping="never")], "val_acc"),
        ([run("train_loss", EarlyStopping="val_loss")], "val_loss"),  # it will come
        ([run("train_loss", "val_kl", "val_loss_step", "val_loss_epoch", "val_acc", "test_loss")], "val_loss_epoch"),
        ([run("train_loss", "val_acc"), run("train_loss", "loss")], "val_acc"),
        ([run("loss", "train_loss_step", "train_loss_epoch", "train_acc")], "train_loss_epoch"),
        ([run("loss", "acc")], "loss"),
        ([run("width", summary=["test_acc"])], "val/loss"),
    ],
)
def test_the_target_is_what_the_runs_are_judged_by(runs, target):
    assert default_target(runs) == target
    assert better_end(target, runs) is not None or target in "ab"


def test_a_target_that_no_run_has_is_answered_with_the_names_there_are():
    runs = [run("train_loss", "val_loss", "lr-SGD", summary=["test_acc", "trainer/global_step", "epoch"])]
    with pytest.raises(ValueError, match=r"got 'val_los'. The runs have: val_loss, [^/]*test_acc") as said:
        check_target("val_los", runs)
    assert "epoch" not in str(said.value)
    with pytest.raises(ValueError, match="and 31 more"):
        check_target("f50", [run(*(f"val_f{number}" for number in range(51) if number != 50), "x")])
    for known in ("val_loss", "test_acc", "lr-SGD"):
        check_target(known, runs)
    check_target("val_los", [])
    check_target("val_los", [run()])  # a run that has only begun
    check_target("val_f1", [run("train_loss", EarlyStopping="val_f1")])  # it will come
    check_target("val_loss", [run("val_loss_epoch")])


def test_better_is_what_the_runs_say_then_the_monitors_mode_then_the_name():
    judged = run("val_acc", EarlyStopping="val_acc", goals={"val_acc": "max"})
    judged.config["callbacks.EarlyStopping.mode"] = "min"
    assert better_end("val_acc", [judged]) == "max"
    judged.goals = {}
    assert better_end("val_acc", [judged]) == "min"
    assert better_end("val_acc", [run("val_acc")]) == "max"
    assert better_end("width", [run("width")]) is None
    assert better_end("width", [run("width", EarlyStopping="width")]) == "min"  # as the kit's callbacks take it
    other = run("width", EarlyStopping="width")
    other.config["callbacks.EarlyStopping.mode"] = "max"
    assert better_end("width", [other]) == "max"
    contrary = run("width", EarlyStopping="width")
    contrary.config["callbacks.EarlyStopping.mode"] = "min"
    assert better_end("width", [other, contrary]) is None


def test_an_epochs_value_stands_for_the_metric_that_was_logged_with_its_steps():
    stepwise = run("val_loss_step", "val_loss_epoch")
    assert best_value(stepwise, "val_loss", "min") == 0.2
    assert best_value(stepwise, "val_loss", "max") == 0.5
    assert best_value(run("val_loss_epoch/dataloader_idx_1"), "val_loss/dataloader_idx_1", "min") == 0.2
    assert best_value(run(summary=["val_loss"]), "val_loss", "min") == 0.7
    assert best_value(run(summary=["val_loss_epoch"]), "val_loss", "min") == 0.7
    assert best_value(run("val_loss_step"), "val_loss", "min") is None
    nothing = run("val_loss")
    nothing.curves["val_loss"].values[:] = np.nan
    assert best_value(nothing, "val_loss", "min") is None


def test_a_table_shows_scores_of_validation_then_of_a_test():
    names = ("train_acc", "val_loss", "val_acc_step", "val_acc_epoch", "val_f1", "val_auroc")
    assert table_scores([run(*names, summary=["test_acc", "test_acc_member"])], "val_loss") == [
        *("val_acc_epoch", "val_f1", "test_acc")
    ]
    assert table_scores([run(*names)], "val_acc") == ["val_acc_step", "val_f1", "val_auroc"]
    assert table_scores([run("val_loss")], "val_loss") == []
