"""Bytes of every kind of file that the page reads are flipped and cut off; many such files are one folder and one page.

TRAININGKIT_DAMAGED=2000 damages so many files of a kind.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_trainingkit.dashboards.heartbeat import Heartbeat
from lightning_trainingkit.dashboards.local import collect
from lightning_trainingkit.dashboards.other_loggers import note_log_dirs
from lightning_trainingkit.dashboards.read.gather import gather
from tests import process

COUNT = int(os.environ.get("TRAININGKIT_DAMAGED", "200"))
STEPS = 60
SECONDS = 5  # of a file, at most


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder of each kind of run, whole."""
    root = tmp_path_factory.mktemp("originals")
    table, events = root / "table", root / "events"
    table.mkdir()
    rows = [f"{step // 10},{step},{1 / (step + 1):.6f},{step / STEPS:.4f}" for step in range(STEPS)]
    (table / "metrics.csv").write_bytes("\r\n".join(["epoch,step,val_loss,val/acc", *rows, ""]).encode())
    (table / "hparams.yaml").write_text(
        "a: &id001\n  lr: 0.1\n  betas: !!python/tuple\n  - 0.9\n  - 0.999\nb: *id001\nnames: [x, y]\nwidth: 0x1F\n"
    )
    Heartbeat(table).stop()
    note_log_dirs(table, [events])
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(events) as writer:
        for step in range(STEPS):
            writer.add_scalar("val_loss", 1 / (step + 1), step)
    return root


def damaged(content, draw):
    """Another content, and whether it is cut off alone: that is how a run looks that is being written."""
    kind = draw.choice(("flip", "flip", "flip", "cut", "both", "swap", "zeros"))
    content = bytearray(content)
    if kind in ("flip", "both"):
        for _ in range(draw.choice((1, 1, 1, 3, 20))):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    if kind == "swap":
        start = draw.randrange(len(content))
        content[start : start + 40] = draw.randbytes(len(content[start : start + 40]))
    if kind == "zeros":
        start = draw.randrange(len(content))
        content[start : start + 100] = bytes(len(content[start : start + 100]))
    if kind in ("cut", "both"):
        del content[draw.randrange(len(content)) :]
    return bytes(content), kind in ("cut", "both")


def write(root, original, name, count):
    """Copies of a folder with one file damaged; which of them are cut off."""
    draw, cut = random.Random(name), set()
    (path,) = original.glob(name)
    content = path.read_bytes()
    for number in range(count):
        folder = root / f"run{number}"
        shutil.copytree(original, folder)
        changed, is_cut = damaged(content, draw)
        (folder / path.name).write_bytes(changed)
        if is_cut:
            cut.add(folder.name)
    return cut


def read(root):
    """All runs and their page, within a time; runs and what was skipped by the name of their folder."""
    start = time.monotonic()
    runs, skipped = gather([root])
    page = collect([root])  # from the cache
    assert time.monotonic() - start < SECONDS + 0.1 * COUNT
    assert not any("must be read within" in why or "ends the process" in why for why in skipped.values())
    assert len(page["runs"]) == len(runs)
    assert len(page["skipped"]) == len(skipped)
    json.dumps(page)
    named = {Path(run.source).parent.name: run for run in runs}
    return named, {Path(path).parent.name: why for path, why in skipped.items()}


def points(run):
    return sum(int(np.isfinite(curve.values).sum()) for curve in run.curves.values())


def check_noted(root, original, cut, allowed=0):
    """Each run is whole, says that it has lost something, was cut off alone, or is skipped by name."""
    (whole,), _ = gather([original])
    runs, skipped = read(root)
    assert runs.keys() | skipped.keys() == {f"run{number}" for number in range(COUNT)}
    least = points(whole) - allowed
    silent = {
        name: points(run) for name, run in runs.items() if points(run) < least and not run.note and name not in cut
    }
    assert silent == {}
    assert any(run.note for run in runs.values())
    assert skipped


def test_tables(originals, tmp_path):
    cut = write(tmp_path, originals / "table", "metrics.csv", COUNT)
    check_noted(tmp_path, originals / "table", cut, allowed=2)  # a row without its end is one that is being written


def test_event_files(originals, tmp_path):
    cut = write(tmp_path, originals / "events", "events.out.tfevents.*", COUNT)
    check_noted(tmp_path, originals / "events", cut, allowed=2)  # a record without its end likewise


def test_settings(originals, tmp_path):
    write(tmp_path, originals / "table", "hparams.yaml", COUNT)
    runs, skipped = read(tmp_path)
    assert skipped == {}
    assert len(runs) == COUNT
    lost = [run for run in runs.values() if not run.config]
    assert lost
    assert all("settings are missing" in run.note or run.note == "" for run in lost)
    assert all(points(run) == 2 * STEPS for run in runs.values())


@pytest.mark.parametrize("name", ["heartbeat.json", "other_loggers.json"])
def test_what_stands_beside(originals, tmp_path, name):
    write(tmp_path, originals / "table", name, COUNT)
    runs, skipped = read(tmp_path)
    assert skipped == {}
    assert len(runs) == COUNT
    assert {run.state for run in runs.values()} <= {"running", "killed", "unknown"}


def test_caches(originals, tmp_path):
    for number in range(COUNT):
        shutil.copytree(originals / "table", tmp_path / f"run{number}")
    before, _ = read(tmp_path)
    draw = random.Random(0)
    for path in sorted(tmp_path.rglob("*.cache")):
        path.write_bytes(damaged(path.read_bytes(), draw)[0])
    after, skipped = read(tmp_path)
    assert skipped == {}
    assert before.keys() == after.keys()
    for name, run in before.items():
        for metric, curve in run.curves.items():
            np.testing.assert_array_equal(curve.values, after[name].curves[metric].values)


@pytest.mark.slow
def test_runs_of_wandb(tmp_path):
    process.run(Path(__file__).with_name("write_runs.py"), tmp_path / "whole", folder=tmp_path)
    path = next(path for path in (tmp_path / "whole").rglob("run-*.wandb") if b"whole" in path.read_bytes())
    original = tmp_path / "original"
    original.mkdir()
    shutil.copy(path, original)
    root = tmp_path / "runs"
    cut = write(root, original, "run-*.wandb", COUNT)
    for number in range(COUNT):  # files of one name are one run
        (root / f"run{number}" / path.name).rename(root / f"run{number}" / f"run-{number}.wandb")
    check_noted(root, original, cut)
