"""What may lie in a folder of runs, and costs no more than its own run."""

import os
import socket
import time

import pytest

from lightning_trainingkit.dashboards.heartbeat import state
from lightning_trainingkit.dashboards.read import run_files
from lightning_trainingkit.dashboards.read.gather import gather

GOOD = "epoch,step,val_loss\n0,1,0.25\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "metrics.csv").write_text(GOOD)
    return tmp_path


def place(path, kind):
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "nothing": "nowhere"}[kind])


@pytest.mark.parametrize("name", ["metrics.csv", "run-x.wandb", "events.out.tfevents.1"])
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pipe", "got a pipe"),
        ("socket", "got a socket"),
        ("folder", "got a folder"),
        ("device", "got a device"),
        ("loop", "symbolic links"),
        ("nothing", "No such file"),
    ],
)
def test_what_is_no_file_is_named(root, monkeypatch, name, kind, why):
    monkeypatch.chdir(root)
    path = root / "odd" / name
    place(path, kind)
    start = time.monotonic()
    (run,), skipped = gather([root])
    assert time.monotonic() - start < 5
    assert run.id == "good"
    assert list(skipped) == [str(path)]
    assert why in skipped[str(path)]


def test_a_link_to_a_link_is_a_run(root):
    (root / "second").mkdir()
    (root / "second" / "metrics.csv").symlink_to(root / "first.csv")
    (root / "first.csv").symlink_to(root / "original.csv")
    (root / "original.csv").write_text(GOOD)
    runs, skipped = gather([root])
    assert ({run.id for run in runs}, skipped) == ({"good", "second"}, {})


def test_a_folder_that_nobody_may_enter_is_named(root, monkeypatch):
    (root / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as root, whom nothing is closed to
    assert gather([root])[1] == {str(root / "closed"): "PermissionError: Permission denied"}


def test_folders_of_any_depth_are_named_or_read(root, monkeypatch):
    deep = root
    for _ in range(run_files._MAX_DEPTH + 2):
        deep = deep / "d"
        deep.mkdir()
    runs, skipped = gather([root])
    assert len(runs) == 1
    assert "folders deep" in next(iter(skipped.values()))


@pytest.mark.parametrize(
    "text",
    [
        '{"pid": 1e999, "time": 1}',
        '{"pid": 1, "time": 1e999}',
        '{"pid": 1, "time": NaN}',
        '{"pid": 1, "time": 1' + "0" * 400 + "}",
        '{"pid": 1' + "0" * 4400 + ', "time": 1}',
        '{"pid": -1, "time": 1}',
        '{"pid": 99999999999999999999, "time": 1}',
        '{"pid": [], "time": {}}',
        "[1, 2]",
        "[" * 9000,
        '{"pid": 1, "time": 1, "more": "' + "x" * 20_000 + '"}',
    ],
)
def test_a_heartbeat_of_anybody_is_none(tmp_path, text):
    (tmp_path / "heartbeat.json").write_text(text)
    assert state(tmp_path) is None


def test_a_heartbeat_that_is_no_file_is_none(tmp_path):
    os.mkfifo(tmp_path / "heartbeat.json")
    assert state(tmp_path) is None
    (tmp_path / "heartbeat.json").unlink()
    (tmp_path / "heartbeat.json").symlink_to("/dev/zero")
    assert state(tmp_path) is None


def test_settings_that_explode_cost_the_settings_alone(root):
    (root / "good" / "hparams.yaml").write_text("a: &a [*a]\nb: 0x" + "f" * 6000 + "\n")
    (run,), skipped = gather([root])
    assert skipped == {}
    assert run.curves["val_loss"].values.tolist() == [0.25]
    assert "settings are missing" in run.note
