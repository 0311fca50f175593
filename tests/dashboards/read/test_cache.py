import os
import zlib

import numpy as np
import pytest

from lightning_trainingkit.dashboards.read import cache
from lightning_trainingkit.dashboards.read.packing import _HEAD, Found, pack, unpack
from lightning_trainingkit.dashboards.read.record import Curve, Record
from lightning_trainingkit.dashboards.read.run_files import RunFiles
from lightning_trainingkit.dashboards.read.thinning import thin


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name / "run-x.wandb" for name in ("1", "2")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"content")
    return RunFiles(tuple(paths))


@pytest.fixture
def found(files):
    steps = np.arange(5000.0)
    values = np.where(steps % 50 == 3, np.nan, np.sin(steps))
    curves = {"long": thin(Curve(steps, values), 20), "none": Curve(np.zeros(0), np.zeros(0)), "é": Curve(steps, steps)}
    config = {"lr": 0.1, "inf": float("inf"), "none": None, "odd \udc80": "\udc80"}
    record = Record("x", "n", tags=["t"], config=config, goals={"a": "min"}, summary={"a": 1.0}, curves=curves)
    record.source = str(files.paths[1])
    return Found([record, Record("y", source=str(files.paths[0]))], {files.paths[0]: "it is empty."})


def same(one, other):
    assert one.unread == other.unread
    for mine, theirs in zip(one.records, other.records, strict=True):
        assert mine.curves.keys() == theirs.curves.keys()
        for name, curve in mine.curves.items():
            for part in ("steps", "values", "means"):
                a, b = getattr(curve, part), getattr(theirs.curves[name], part)
                assert (a is None) == (b is None)
                if a is not None:
                    np.testing.assert_array_equal(a, b)
        assert {**vars(mine), "curves": 0} == {**vars(theirs), "curves": 0}


def test_what_is_kept_comes_back_until_a_file_changes(files, found):
    assert cache.load(files) is None
    cache.save(files, found, cache.signature(files))
    assert cache.cache_path(files).parent == files.paths[1].parent  # beside the newest
    same(cache.load(files), found)
    os.utime(files.paths[0], ns=(1, 1))
    assert cache.load(files) is None


def test_runs_of_one_folder_keep_a_cache_each(tmp_path):
    for name in ("run-a.wandb", "run-b.wandb", "metrics.csv"):
        (tmp_path / name).write_bytes(b"x")
    runs = [RunFiles((tmp_path / name,)) for name in ("run-a.wandb", "run-b.wandb", "metrics.csv")]
    for each in runs:
        cache.save(each, Found([Record(each.paths[0].name, source=str(each.paths[0]))]), cache.signature(each))
    assert [cache.load(each).records[0].id for each in runs] == ["run-a.wandb", "run-b.wandb", "metrics.csv"]


def test_settings_beside_a_table_belong_to_it(tmp_path):
    (tmp_path / "metrics.csv").write_text("step\n")
    files = RunFiles((tmp_path / "metrics.csv",))
    before = cache.signature(files)
    (tmp_path / "hparams.yaml").write_text("lr: 1\n")
    assert cache.signature(files) != before


def test_the_signature_is_checked_before_anything_is_read(files, found, monkeypatch):
    cache.save(files, found, "of another state")
    monkeypatch.setattr(cache, "unpack", lambda *_: pytest.fail("it was unpacked"))
    assert cache.load(files) is None
    for other in (b"", b"PK\x03\x04 an archive", os.urandom(1000)):
        cache.cache_path(files).write_bytes(other)
        assert cache.load(files) is None
    cache.cache_path(files).unlink()
    os.mkfifo(cache.cache_path(files))
    assert cache.load(files) is None


def test_each_flipped_byte_and_each_cut_is_noticed(files, found):
    cache.save(files, found, cache.signature(files))
    path = cache.cache_path(files)
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    for place in draw.integers(len(content), size=200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        assert cache.load(files) is None
        path.write_bytes(content[:place])
        assert cache.load(files) is None
    path.write_bytes(content)
    same(cache.load(files), found)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"records": [{}], "unread": []}',
        b'{"records": [{"curves": {"a": [1000000000000, 0]}}], "unread": []}',
        b'{"records": [{"curves": {"a": [-4, 3]}}], "unread": []}',
        b'{"records": [], "unread": [[7, "why"]]}',
        b"[" * 100_000,
    ],
)
def test_a_valid_checksum_of_nonsense_is_none(files, text):
    text += b" " * (-len(text) % 8)
    content = _HEAD.pack(_HEAD.size + len(text), len(text), zlib.crc32(text)) + text
    with pytest.raises(ValueError):  # noqa: PT011
        unpack(content, files.paths)


def test_a_long_text_is_not_decoded(files):
    text = b"[" + b"[]," * 11_000_000 + b"0]"
    text += b" " * (-len(text) % 8)
    with pytest.raises(ValueError, match="at most 32,000,000 bytes"):
        unpack(_HEAD.pack(_HEAD.size + len(text), len(text), zlib.crc32(text)) + text, files.paths)


@pytest.mark.parametrize(
    "change",
    [
        *({"tags": [1]}, {"config": 3}, {"config": {"a": [1]}}, {"note": None}, {"id": 1}),
        *({"summary": {"a": "x"}}, {"summary": {"a": float("nan")}}, {"summary": {"a": 10**400}}),
        *({"seconds": float("nan")}, {"started": float("inf")}),
    ],
)
def test_a_field_that_no_reader_gives_is_refused(files, change):
    content = pack(Found([Record("x", source=str(files.paths[0]))]), files.paths)
    assert unpack(content, files.paths).records
    record = Record(**({"id": "x", "source": str(files.paths[0])} | change))
    with pytest.raises(ValueError, match=r"damaged|not finite"):
        unpack(pack(Found([record]), files.paths), files.paths)
