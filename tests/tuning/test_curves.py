import math

import numpy as np
import pytest

from lightning_trainingkit.dashboards.read.record import Curve, Record
from lightning_trainingkit.tuning import read_curves
from tests.dashboards.read import made_log

FALLING = [2.3 * 0.8**epoch for epoch in range(12)]
RISING = [loss + 0.2 * epoch for epoch, loss in enumerate(FALLING)]


def write_csv(folder, train=FALLING, val=RISING, names=("train_loss_epoch", "val_loss")):
    """A file as CSVLogger writes it: training and validation in rows of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"step,epoch,{','.join(names)}"]
    for epoch, (one, other) in enumerate(zip(train, val, strict=True)):
        rows += [f"{10 * epoch + 9},{epoch},,{other}", f"{10 * epoch + 9},{epoch},{one},"]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    return folder / "metrics.csv"


def test_a_file_its_folder_and_its_values_read_alike(tmp_path):
    file = write_csv(tmp_path / "logs" / "version_0")
    readings = [
        read_curves(file),
        read_curves(str(file.parent)),
        read_curves({"train/loss": FALLING, "val/loss": RISING}),
    ]
    assert [each.shape for each in readings] == ["overfit"] * 3
    assert readings[0] == readings[1]
    assert readings[0].name == "logs/version_0"
    assert readings[0].message == readings[2].message
    assert readings[0].line.startswith("warn. The validation loss has turned: it ends ")
    assert "weight decay" in readings[0].advice


def test_a_folder_of_runs_gives_a_list_and_a_run_without_losses_says_why(tmp_path):
    write_csv(tmp_path / "version_0")
    write_csv(tmp_path / "version_1", [2.3] * 12, [2.3] * 12)
    write_csv(tmp_path / "version_2", names=("test_loss", "test_acc"))
    found = {each.name.split("/")[-1]: each for each in read_curves(tmp_path)}
    assert {name: (each.shape, each.verdict) for name, each in found.items()} == {
        "version_0": ("overfit", "warn"),
        "version_1": ("not_started", "fail"),
        "version_2": ("unclear", "warn"),
    }
    assert "must have a training loss, got test_acc, test_loss" in found["version_2"].message


def test_a_run_of_wandb(tmp_path):
    rows = [
        made_log.values(epoch, **{"trainer/global_step": 10 * epoch, "train/loss": one, "val/loss": other})
        for epoch, (one, other) in enumerate(zip(FALLING, RISING, strict=True))
    ]
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-made"
    folder.mkdir(parents=True)
    (folder / "run-made.wandb").write_bytes(made_log.framed([made_log.run(), *rows, made_log.end()]))
    for source in (folder, folder / "run-made.wandb"):
        assert read_curves(source).shape == "overfit"
    assert [each.shape for each in read_curves(tmp_path)] == ["overfit"]


def test_a_record_that_was_thinned_is_read_by_its_means():
    steps = np.arange(12.0)
    wild = Curve(steps, np.full(12, 99.0), np.stack([steps, np.array(FALLING), np.full(12, 50.0)]))
    record = Record("a", curves={"train_loss": wild, "val_loss": Curve(steps, np.array(RISING))})
    reading = read_curves(record)
    assert (reading.shape, reading.name) == ("overfit", "a")


def test_a_loss_that_is_not_finite_fails_and_names_the_step():
    reading = read_curves({"loss": ([0, 5, 10], [2.3, math.inf, math.nan])})
    assert (reading.shape, reading.verdict, reading.value) == ("diverged", "fail", 5)
    assert "step 5" in reading.message
    assert any("No validation loss" in note for note in reading.notes)


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ({"val/loss": FALLING, "val/acc": FALLING}, ValueError, "a training loss, got val/acc, val/loss. Log it"),
        ({}, ValueError, "a training loss, got no metrics"),
        ({"train/loss": [1.0]}, ValueError, "at least two values of train/loss, got 1"),
        ({"train/loss": ([1, 2], [1.0, 2.0, 3.0])}, ValueError, r"got shapes \(2,\) and \(3,\)"),
        ({"train/loss": "high"}, TypeError, "must be numbers"),
        (3, TypeError, "a file, a folder, a Record or a mapping, got int"),
        ("nowhere", FileNotFoundError, "must exist, got nowhere"),
    ],
)
def test_what_cannot_be_read(source, error, match):
    with pytest.raises(error, match=match):
        read_curves(source)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"must hold a run, got .*Pass a CSV file"):
        read_curves(tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column `step`"):
        read_curves(tmp_path / "table.csv")


def test_the_picture(tmp_path):
    losses = {"train/loss": FALLING, "val/loss": [*RISING[:-1], math.nan]}
    read_curves(losses).save_picture(tmp_path / "new" / "losses.png")
    read_curves(losses | {"train/acc": np.linspace(0, 1, 12), "val/acc": np.linspace(0, 0.9, 12)}).save_picture(
        tmp_path / "both.svg"
    )
    assert (tmp_path / "new" / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "both.svg").read_text()


def test_the_given_arrays_stay_as_they_are():
    values = np.array(FALLING[::-1])
    kept = values.copy()
    read_curves({"train/loss": values})
    assert (values == kept).all()
