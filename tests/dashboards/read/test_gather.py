import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from rich import get_console
from rich.progress import Progress

from lightning_trainingkit.dashboards.heartbeat import Heartbeat
from lightning_trainingkit.dashboards.read import cache, gather
from lightning_trainingkit.dashboards.read.joining import joined
from lightning_trainingkit.dashboards.read.record import Curve, Record
from tests import process


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    process.run(Path(__file__).with_name("write_runs.py"), root, folder=root)
    return root


@pytest.fixture
def root(written, tmp_path):
    shutil.copytree(written, tmp_path / "runs", symlinks=True, ignore=shutil.ignore_patterns("*.cache"))
    return tmp_path / "runs"


def by_name(runs):
    return {run.name: run for run in runs}


def test_what_wandb_wrote_is_read(written):
    runs, skipped = gather.gather([written])
    assert skipped == {}
    assert len(runs) == 3
    whole, failed = by_name(runs)["whole"], by_name(runs)["failed"]
    assert (whole.project, whole.group, whole.job_type, whole.tags) == ("task", "grid", "eval", ["a", "b"])
    assert whole.config == {"lr": 0.1, "net.width": 3, "late": "yes"}
    assert whole.goals == {"val/acc": "max"}
    assert set(whole.curves) == {"val/acc", "a.b"}
    np.testing.assert_array_equal(whole.curves["val/acc"].values, [0.1, 0.9, 0.5, np.nan, np.inf])
    assert whole.curves["a.b"].steps.tolist() == [0, 10, 20, 30, 40]
    assert whole.summary["a.b"] == -4
    assert (whole.state, failed.state, whole.note) == ("finished", "failed", "")
    assert abs(whole.started - time.time()) < 3600
    other = next(run for run in runs if run.project == "other")
    assert other.name == other.id
    assert other.curves["loss"].steps.tolist() == [0, 1]  # W&B's own count, where Lightning's is missing


def test_files_of_one_id_are_one_run_that_went_on(tmp_path):
    process.run(Path(__file__).with_name("write_runs.py"), tmp_path, "resume", folder=tmp_path)
    assert len(list(tmp_path.glob("wandb/offline-run-*-same/run-same.wandb"))) == 2
    for _ in range(2):  # from the files, from the cache
        (run,), skipped = gather.gather([tmp_path])
        assert skipped == {}
        assert (run.name, run.state) == ("resumed", "finished")
        assert run.config == {"try": 0, "from 0": True, "from 3": True}
        assert run.curves["loss"].steps.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
        assert run.curves["loss"].values.tolist() == [10, 11, 12, 3, 4, 5, 6, 7]


def test_only_changed_runs_are_read_again(root, monkeypatch):
    read = []
    read_all = gather.read_all
    monkeypatch.setattr(
        gather, "read_all", lambda runs: read.extend(run.paths[0].name for run in runs) or read_all(runs)
    )
    first, _ = gather.gather([root])
    assert len(read) == 3
    again, _ = gather.gather([root, root])
    assert len(read) == 3
    for one, other in zip(first, again, strict=True):
        assert one.curves.keys() == other.curves.keys()
        for name, curve in one.curves.items():
            np.testing.assert_array_equal(curve.values, other.curves[name].values)
            np.testing.assert_array_equal(curve.steps, other.curves[name].steps)
        one.curves = other.curves = {}
        assert one == other
    changed = next(Path(run.source) for run in first if run.name == "whole")
    os.utime(changed, ns=(1, 1))
    gather.gather([root])
    assert read[3:] == [changed.name]
    next(changed.parent.glob("*.cache")).write_bytes(b"no archive")
    assert by_name(gather.gather([root])[0])["whole"].curves
    assert len(read) == 5


def test_what_cannot_be_read_is_not_tried_again_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    path.write_text("nothing\n1\n")
    read = []
    read_all = gather.read_all
    monkeypatch.setattr(gather, "read_all", lambda runs: read.extend(runs) or read_all(runs))
    for _ in range(2):
        assert list(gather.gather([tmp_path])[1]) == [str(path)]
    assert len(read) == 1
    path.write_text("step,a\n1,2\n")
    (run,), skipped = gather.gather([tmp_path])
    assert (len(read), skipped, run.curves["a"].values.tolist()) == (2, {}, [2])


def test_curves_are_thinned_and_what_stands_out_stays(tmp_path):
    values = np.sin(np.arange(5000.0))
    values[[777, 4321]] = 50, -50
    rows = "".join(f"{step},{value!r}\n" for step, value in enumerate(values.tolist()))
    (tmp_path / "metrics.csv").write_text(f"step,a\n{rows}")
    for _ in range(2):  # from the file, from the cache
        (run,), _ = gather.gather([tmp_path])
        curve = run.curves["a"]
        assert len(curve.steps) <= 1602
        assert (curve.steps[0], curve.steps[-1], curve.values.max(), curve.values.min()) == (0, 4999, 50, -50)
        assert curve.means.shape == (3, 800)
        assert curve.means[2].sum() == 5000


def test_no_cache_is_needed(root, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(cache, "write_bytes", refuse)
    assert len(gather.gather([root])[0]) == 3
    assert not list(root.rglob("dashboard*"))


def test_truncated_empty_and_foreign_files_are_named(root):
    whole = next(path for path in root.rglob("run-*.wandb") if b"whole" in path.read_bytes())
    for name, content in {
        "empty": b"",
        "foreign": b"hello, this is no run of W&B's",
        "cut": whole.read_bytes()[:-300],
        "torn": whole.read_bytes()[:1200] + b"\xff" * 40 + whole.read_bytes()[1240:],
    }.items():
        (root / name).mkdir()
        (root / name / f"run-{name}.wandb").write_bytes(content)
    (root / "csv").mkdir()
    (root / "csv" / "metrics.csv").write_text("nothing,here\n1,2\n")
    _, skipped = gather.gather([root])
    assert {Path(path).parent.name for path in skipped} == {"empty", "foreign", "csv"}
    assert next(why for path, why in skipped.items() if path.endswith("run-empty.wandb")) == "it is empty."
    (cut,), _ = gather.gather([root / "cut"])  # with the whole file it would be one run
    assert cut.state == "unknown"
    assert 0 < len(cut.curves["val/acc"].values) <= 5
    (torn,), _ = gather.gather([root / "torn"])
    assert "corrupt" in torn.note


def test_a_folder_must_exist_and_may_hold_nothing(tmp_path):
    assert gather.gather([tmp_path]) == ([], {})
    with pytest.raises(FileNotFoundError, match=r"`DIR` must be a folder with runs, got .*nowhere"):
        gather.gather([tmp_path / "nowhere"])


def test_a_run_of_which_a_part_is_unreadable_is_seen_to_die(root):
    whole = next(path for path in root.rglob("run-*.wandb") if b"whole" in path.read_bytes())
    for part, content in {"1": whole.read_bytes()[:-300], "2": b""}.items():
        (root / "parts" / part).mkdir(parents=True)
        (root / "parts" / part / "run-x.wandb").write_bytes(content)
    Heartbeat(root / "parts" / "1").stop()
    assert [run.state for run in gather.gather([root / "parts"])[0]] == ["running"]
    beat = root / "parts" / "1" / "heartbeat.json"
    beat.write_text(beat.read_text().replace('"began": "', '"began": "9'))  # another process had this number
    assert [run.state for run in gather.gather([root / "parts"])[0]] == ["killed"]


def test_progress_is_shown_beside_a_live_progress_bar(root, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    shutil.copytree(root, root / "more")
    for path in (root / "more").rglob("run-*.wandb"):
        path.rename(path.with_name(f"{path.stem}-more.wandb"))
    with Progress(console=get_console()):  # as Lightning's RichProgressBar has while its Trainer tears down
        assert gather.gather([root])[0]
    assert "Reading 6 runs" in capsys.readouterr().err


def test_a_run_that_has_only_begun_is_a_running_one(tmp_path):
    beat = Heartbeat(tmp_path)
    (tmp_path / "run-young.wandb").write_bytes(b"")
    (run,), skipped = gather.gather([tmp_path])
    assert (run.name, run.state, run.note, skipped) == ("young", "running", "nothing to read yet: it is empty.", {})
    beat.stop()
    (tmp_path / "heartbeat.json").unlink()
    assert gather.gather([tmp_path]) == ([], {str(tmp_path / "run-young.wandb"): "it is empty."})


def test_a_run_that_was_killed_before_its_first_rows_is_a_killed_one(tmp_path):
    Heartbeat(tmp_path).stop()
    beat = json.loads((tmp_path / "heartbeat.json").read_text())
    (tmp_path / "heartbeat.json").write_text(json.dumps(beat | {"began": "1"}))
    (tmp_path / "run-young.wandb").write_bytes(b"")
    (run,), skipped = gather.gather([tmp_path])
    assert (run.state, skipped) == ("killed", {})


def test_a_resumed_run_keeps_what_its_later_parts_do_not_say():
    steps = np.arange(4.0)
    first = Record(
        "x", "n", "p", "g", "train", ["t"], started=1.0, seconds=2.0, note="cut", curves={"a": Curve(steps, steps)}
    )
    later = Record("x", "x", started=2.0, seconds=3.0, state="running", curves={"a": Curve(steps[2:], -steps[2:])})
    run = joined([first, first, later])
    assert (run.name, run.project, run.group, run.job_type, run.tags) == ("n", "p", "g", "train", ["t"])
    assert (run.seconds, run.state) == (5.0, "running")
    assert run.note == "cut; resumed: the last 2 values were logged once more"
    assert run.curves["a"].values.tolist() == [0, 1, -2, -3]


def test_folders_of_any_name_hold_runs(root):
    (root / "artifacts" / "files").mkdir(parents=True)
    (root / "wandb").rename(root / "artifacts" / "files" / "wandb")
    (root / "run-stray.wandb").write_bytes(b"")
    assert len(gather.gather([root])[0]) == 3


def test_reading_asks_no_server(root, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    assert len(gather.gather([root])[0]) == 3


def test_a_linked_file_is_read_and_nothing_is_written_outside_of_the_folder(tmp_path):
    table = "epoch,step,val/loss\n0,0,0.5\n1,9,0.4\n"
    for name in ("outside", "runs/linked", "runs/own"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside" / "metrics.csv").write_text(table)
    (tmp_path / "runs" / "own" / "metrics.csv").write_text(table)
    (tmp_path / "runs" / "linked" / "metrics.csv").symlink_to(tmp_path / "outside" / "metrics.csv")
    (tmp_path / "runs" / "linked2").mkdir()
    (tmp_path / "runs" / "linked2" / "metrics.csv").symlink_to(tmp_path / "runs" / "own" / "metrics.csv")
    for _ in range(2):
        runs, _ = gather.gather([tmp_path / "runs", tmp_path / "runs" / "own"])
        assert sorted(run.id for run in runs) == ["linked", "own"]
    assert os.listdir(tmp_path / "outside") == ["metrics.csv"]  # noqa: PTH208
    assert (tmp_path / "runs" / "linked" / "dashboard.cache").is_file()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_stands_in_the_place_of_the_cache_is_kept(tmp_path, kind):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("epoch,step,val/loss\n0,0,0.5\n")
    mine = tmp_path / "run" / "dashboard.cache" / "mine" if kind == "folder" else tmp_path / "mine"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("precious")
    if kind == "link":
        (tmp_path / "run" / "dashboard.cache").symlink_to(mine)
    (run,), _ = gather.gather([tmp_path])
    assert run.curves["val/loss"].values.tolist() == [0.5]
    assert mine.read_text() == "precious"
    assert not list(tmp_path.glob("**/*.tmp"))
