import json
import logging
import math
import shutil
import struct
import sys

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_trainingkit.dashboards.heartbeat import Heartbeat
from lightning_trainingkit.dashboards.other_loggers import note_log_dirs
from lightning_trainingkit.dashboards.read.event_files import read_event_files
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.read.record import UnreadableError
from tests.toy import ToyModule, toy_loaders, toy_trainer


def events_below(folder):
    return sorted(folder.glob("events.out.tfevents.*"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("events")
    logger = TensorBoardLogger(root, name="toys", default_hp_metric=True)
    trainer = toy_trainer(logger=[logger, CSVLogger(root / "csv", name="toys")], max_epochs=2)
    trainer.fit(ToyModule(lr=0.05), *toy_loaders())
    logger.experiment.add_scalars("pair", {"one": 1.0, "two": 2.0}, 3)
    logger.experiment.add_hparams({"lr": 0.05}, {})
    logger.experiment.flush()
    logger.experiment.close()
    return root


@pytest.fixture
def folder(recorded, tmp_path):
    return shutil.copytree(recorded / "toys", tmp_path / "toys") / "version_0"


def test_what_tensorboard_logger_wrote_equals_what_csvlogger_wrote(recorded):
    runs, skipped = gather([recorded])
    assert skipped == {}  # the folder that holds hyperparameters alone is none
    named = {run.name: run for run in runs if run.project == "toys" and "csv" not in run.source}
    (csv,) = (run for run in runs if "csv" in run.source)
    (run,) = named.values()
    assert (run.name, run.id, run.state, run.note) == ("toys/version_0", "version_0", "unknown", "")
    assert run.config == csv.config == {"lr": 0.05}
    assert run.curves.keys() == csv.curves.keys()
    for name, curve in run.curves.items():
        assert curve.steps.tolist() == csv.curves[name].steps.tolist()
        assert curve.values.tolist() == pytest.approx(csv.curves[name].values.tolist(), rel=1e-6)
    assert abs(run.started + run.seconds - csv.started) < 60
    children = {run.name: run.curves["pair"].values.tolist() for run in runs if run.project == "version_0"}
    assert children == {"version_0/pair_one": [1.0], "version_0/pair_two": [2.0]}


def test_all_files_of_a_folder_are_one_run_and_a_later_one_goes_on(folder):
    from torch.utils.tensorboard import SummaryWriter

    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for number, steps in enumerate((range(6), range(4, 8))):
        with SummaryWriter(folder, filename_suffix=f".{number}") as writer:
            for step in steps:
                writer.add_scalar("val_loss", 10 * number + step, step)
    (run,), skipped = gather([folder])
    assert skipped == {}
    assert run.curves["val_loss"].steps.tolist() == list(range(8))
    assert run.curves["val_loss"].values.tolist() == [0, 1, 2, 3, 14, 15, 16, 17]
    assert run.note == "resumed: the last 2 values were logged once more"


def test_a_test_after_the_fit_is_no_resumption(tmp_path):
    trainer = toy_trainer(logger=TensorBoardLogger(tmp_path, name="toys"), max_epochs=2)
    module, (train, val) = ToyModule(lr=0.05), toy_loaders()
    trainer.fit(module, train, val)
    trainer.logger.finalize("success")
    trainer.logger.log_hyperparams({"lr": 0.05})  # writes `hp_metric` into a second file, as Lightning does for a test
    trainer.logger.finalize("success")
    (run,), _ = gather([tmp_path])
    assert len(events_below(tmp_path / "toys" / "version_0")) == 2
    assert run.note == ""


def test_a_killed_run_of_which_wandb_wrote_nothing_shows_what_another_logger_wrote(folder, tmp_path):
    run_folder = tmp_path / "wandb" / "offline-run-1-x"
    run_folder.mkdir(parents=True)
    note_log_dirs(run_folder, [folder, tmp_path / "csv"])
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("epoch,step,val_loss\n0,1,0.25\n")
    (run_folder / "run-x.wandb").write_bytes(b"")
    Heartbeat(run_folder).stop()
    beat = json.loads((run_folder / "heartbeat.json").read_text())
    (run_folder / "heartbeat.json").write_text(json.dumps(beat | {"began": "1"}))
    (run,), skipped = gather([tmp_path])
    assert (run.id, run.state, skipped) == ("x", "killed", {})
    assert run.curves.keys()
    assert run.note.startswith("read from ")


def test_a_table_beside_counts_and_the_events_only_where_it_cannot_be_read(folder):
    (folder / "metrics.csv").write_text("epoch,step,val_loss\n0,1,0.25\n")
    run = next(run for run in gather([folder.parent])[0] if run.id == "version_0")
    assert run.curves["val_loss"].values.tolist() == [0.25]
    (folder / "metrics.csv").write_text("nothing\n")
    runs, skipped = gather([folder.parent])
    assert "val/loss" in next(run for run in runs if run.id == "version_0").curves
    assert list(skipped) == [str(folder / "metrics.csv")]


def test_a_damaged_file_is_read_up_to_there_and_noted(folder):
    before = next(run for run in gather([folder])[0] if run.id == "version_0")
    path = max(events_below(folder), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    run = next(run for run in gather([folder])[0] if run.id == "version_0")
    assert 0 < len(run.curves["train/loss"].steps) < len(before.curves["train/loss"].steps)
    assert run.note == f"{path.name} is damaged: its rest is missing"
    path.write_bytes(content[: len(content) // 3])  # as while it is written
    assert next(run for run in gather([folder])[0] if run.id == "version_0").note == ""


def test_a_record_of_any_length_and_a_valid_checksum_of_nonsense(tmp_path):
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    def framed(length, data):
        header = struct.pack("<Q", length)
        crc = struct.pack("<I", masked_crc32c(header))
        return header + crc + data + struct.pack("<I", masked_crc32c(data))

    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(framed(5, b"\xff" * 5))
    with pytest.raises(UnreadableError, match="damaged"):
        read_event_files([path])
    path.write_bytes(framed(2**62, b"x"))
    with pytest.raises(UnreadableError, match=r"damaged|no scalars"):
        read_event_files([path])
    assert logging.getLogger("tensorboard").propagate


def test_without_tensorboard_the_folder_is_named(folder, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UnreadableError, match="pip install tensorboard"):
        read_event_files(events_below(folder))


def test_what_a_run_of_wandb_notes_counts_once(folder, tmp_path, monkeypatch):
    run_folder = tmp_path / "wandb" / "offline-run-1-x"
    note_log_dirs(run_folder, [folder, tmp_path / "csv"])
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("epoch,step,val_loss\n0,1,0.25\n")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "csv" / "metrics.csv", tmp_path / "other")
    (run_folder / "run-x.wandb").write_bytes(b"no run")
    runs, skipped = gather([tmp_path])  # the W&B run cannot be read: the others can
    assert {"csv", "other", "version_0"} <= {run.id for run in runs}
    assert list(skipped) == [str(run_folder / "run-x.wandb")]
    from lightning_trainingkit.dashboards.read import cache
    from lightning_trainingkit.dashboards.read.packing import Found
    from lightning_trainingkit.dashboards.read.record import Record
    from lightning_trainingkit.dashboards.read.run_files import RunFiles

    files = RunFiles((run_folder / "run-x.wandb",))
    cache.save(files, Found([Record("x", source=str(files.paths[0]))]), cache.signature(files))
    runs, skipped = gather([tmp_path])
    assert {run.id for run in runs} == {"x", "other"}
    assert skipped == {}


@pytest.mark.parametrize("times", [(math.nan, math.nan), (0.0, math.inf), (-1e308, 1e308)])
def test_times_that_are_no_dates_leave_the_run_without_them(tmp_path, times):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (tmp_path / "events.out.tfevents.1").open("wb") as file:
        writer = RecordWriter(file)
        for step, time in enumerate(times):
            value = Summary.Value(tag="loss", simple_value=0.5)
            writer.write(Event(wall_time=time, step=step, summary=Summary(value=[value])).SerializeToString())
    run = read_event_files(events_below(tmp_path))
    assert (run.started, run.seconds, len(run.curves["loss"].steps)) == (0.0, 0.0, 2)


def test_tensorflow_is_not_imported(recorded, tmp_path, monkeypatch):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(recorded / "toys" / "version_0", tmp_path / "runs", ignore=shutil.ignore_patterns("*.cache"))
    runs, skipped = gather([tmp_path / "runs"])
    assert len(runs) == 3
    assert skipped == {}
