import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lightning_trainingkit.dashboards.read.record import UnreadableError
from lightning_trainingkit.dashboards.read.wandb_files import read_wandb_file
from lightning_trainingkit.dashboards.read.wandb_inspect import read_by_inspect
from tests import process
from tests.dashboards.read.made_log import config, end, framed, pb, record, row, run, values


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Files that W&B's client wrote, by the names of their runs; "resumed" is that of the second part."""
    root = tmp_path_factory.mktemp("various")
    process.run(Path(__file__).with_name("write_runs.py"), root, "various", folder=root)
    return {read_wandb_file(path).name: path for path in sorted(root.glob("wandb/offline-run-*/run-*.wandb"))}


@pytest.fixture
def made(tmp_path):
    def make(*payloads):
        path = tmp_path / "run-made.wandb"
        path.write_bytes(framed(payloads))
        return read_wandb_file(path)

    return make


def same(one, other):
    """Whether all of two runs is equal, NaN too."""
    if one.curves.keys() != other.curves.keys() or vars(one) | {"curves": 0} != vars(other) | {"curves": 0}:
        return False
    pairs = [(curve, other.curves[name]) for name, curve in one.curves.items()]
    return all(
        np.array_equal(a.steps, b.steps) and np.array_equal(a.values, b.values, equal_nan=True) for a, b in pairs
    )


def test_both_readers_read_the_same(written, tmp_path):
    cut = tmp_path / "run-cut.wandb"
    cut.write_bytes(written["rows"].read_bytes()[:40_000])
    paths = [written["media"], written["rows"], written["resumed"], cut]
    with ThreadPoolExecutor(2) as pool:
        by_inspect = list(pool.map(read_by_inspect, paths))
    for path, other in zip(paths, by_inspect, strict=True):
        one = read_wandb_file(path)
        other.source = one.source
        assert same(one, other), f"{one}\n{other}"
    assert [run.state for run in by_inspect] == ["finished", "failed", "finished", "unknown"]
    assert 10 < len(by_inspect[3].curves["norm1"].steps) < 150


def test_histograms_tables_and_images_are_no_metrics(written):
    run = read_wandb_file(written["media"])
    plain = {"net.norm", "net.layer.0.norm", "scalar", "typed._type", "typed.value", "large", "largest"}
    assert run.curves.keys() == plain | {"odd", "spelled", 'a "quoted"\nname'}
    assert run.curves["net.norm"].values.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(run.curves["odd"].values, [np.nan, np.inf, -np.inf])
    assert run.summary.keys() == plain | {"best", 'a "quoted"\nname', "trainer/global_step"}
    assert run.config["net.depth"] == 4
    assert "net.width.first" not in run.config  # W&B sets a setting as a whole
    assert (run.config["seed"], run.config["word"], run.config["none"]) == (2**60, "é", None)
    assert not [name for name in run.config if "_wandb" in name]
    assert run.goals == {"val/acc": "max"}
    assert run.note == ""


@pytest.mark.parametrize("seed", range(4))
def test_whatever_damage_left_out_is_noted(written, tmp_path, seed):
    content, path, draw = written["rows"].read_bytes(), tmp_path / "run-rows.wandb", random.Random(seed)
    path.write_bytes(content)
    whole = read_wandb_file(path)
    noted = 0
    for number in range(50):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 3])):
            at = draw.randrange(8, len(damaged))  # not the version, which asks for another reader
            damaged[at] ^= 1 << draw.randrange(8)
        cut = number % 3 == 0
        if cut:
            del damaged[draw.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        start = time.monotonic()
        try:
            found = read_wandb_file(path)
        except UnreadableError:
            continue
        finally:
            assert time.monotonic() - start < 5
        noted += bool(found.note)
        if found.note or same(found, whole):
            continue
        assert found.state == "unknown"  # as that of a run that goes on
        if not cut:  # the last record alone, which says that it has ended
            found.state, found.seconds = whole.state, whole.seconds
            assert same(found, whole)
        for name, curve in found.curves.items():
            count = len(curve.steps)
            assert curve.values.tolist() == whole.curves[name].values[:count].tolist()
            assert curve.steps.tolist() == whole.curves[name].steps[:count].tolist()
    assert noted > 20


def test_a_flipped_bit_costs_a_row_and_says_so(written, tmp_path):
    path = tmp_path / "run-rows.wandb"
    content = bytearray(written["rows"].read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found, whole = read_wandb_file(path), read_wandb_file(written["rows"])
    records = found.note.split()[2]
    assert found.note == f"1 of {records} records are corrupt and left out: rows or settings may be missing"
    assert int(records) > 300  # of each row a record of values and one of the summary
    assert len(found.curves["norm1"].steps) >= len(whole.curves["norm1"].steps) - 1


def test_rows_that_say_nothing_are_left_out(made):
    found = made(
        run(),
        record(history=pb.HistoryRecord()),
        row([("loss", "1")]),
        row([("_step", "1" + 400 * "0"), ("loss", "1")]),
        row([("_step", "NaN"), ("loss", "1")]),
        values(1, loss=2.0),
        row([("_step", "2"), ("loss", "1e999"), ("acc", "-1" + 400 * "0"), ("x", "[" * 100_000), ("y", '"\\ud800')]),
        row([("_step", "3"), ("loss", "1"), ("loss", "3")]),
        b"",
        b"\xff" * 50,
        end(),
    )
    assert found.note == (
        "1 of 11 records are corrupt and left out: rows or settings may be missing; "
        "rows without a step, left out: 4; values beyond the largest number, left out: 2"
    )
    assert found.curves.keys() == {"loss"}
    assert found.curves["loss"].steps.tolist() == [1, 3]
    assert found.curves["loss"].values.tolist() == [2, 3]
    assert (found.state, found.seconds) == ("finished", 3)


def test_a_run_that_stays_open_after_its_last_row_has_run_until_that_row(made):
    found = made(run(), values(1, loss=0.5, _runtime=1.5), end())
    assert (found.state, found.seconds) == ("finished", 1.5)


def test_settings_that_are_too_much_are_named(made):
    found = made(
        run(config=pb.ConfigRecord(update=[pb.ConfigItem(key="lr", value_json="0.1")])),
        config(deep="[" * 100_000, nested="[" * 40 + "]" * 40, cut='{"a"', wide="[" + "0," * 20_000 + "0]"),
        config(huge="1e999", long="1" * 400, digits="1" * 5000, empty="", half='"\\ud800"', fine='{"a": {"b": 1}}'),
        config(text='"' + "x" * (1 << 21) + '"'),
    )
    assert found.config["lr"] == 0.1
    assert found.config["half"].encode() == b"?"
    assert found.config["fine.a.b"] == 1
    assert len(found.config) == 3
    assert found.note == "9 settings could not be read: deep, nested, cut"


def test_who_a_run_is_has_bounds(made):
    found = made(run(display_name="n" * 5000, tags=["t"] * 200, start_time={"seconds": 10**15}), values(1, loss=2.0))
    assert len(found.name) == 1001
    assert len(found.tags) == 100
    assert found.started == 0
    assert "tags after the 100th" in found.note
    for payloads in ([], [values(1, loss=2.0)], [run(run_id="")], [run(run_id="x" * 2000)]):
        with pytest.raises(UnreadableError, match=r"it holds no run|its run must have an id"):
            made(*payloads)


def test_metrics_without_number_are_bounded(made):
    rows = [row([("_step", "1"), *((f"m{place}", "1") for place in range(k, k + 5000))]) for k in (0, 5000, 10_000)]
    found = made(run(), *rows, values(2, **{"n" * 600: 1.0, "m0": 2.0}))
    assert len(found.curves) == 10_000
    assert found.curves["m0"].values.tolist() == [1, 2]
    assert found.note == "values of more than 10000 metrics or of names of more than 500 characters, left out: 5001"


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)
    for name, why in {"pipe": "no file", "zero": "no file", "loop": "no file", "large": "more than 4 GiB"}.items():
        with pytest.raises(UnreadableError, match=why):
            read_wandb_file(tmp_path / name)


@pytest.mark.slow
def test_a_million_rows_are_read(tmp_path):
    path = tmp_path / "run-long.wandb"
    content = framed([run(), *(values(step, loss=1 / (step + 1)) for step in range(1_000_000)), end()])
    path.write_bytes(content)
    found = read_wandb_file(path)
    assert len(found.curves["loss"].values) == 1_000_000
    assert (found.state, found.note) == ("finished", "")
