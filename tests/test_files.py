import contextlib
import json
import os

import pytest

from lightning_trainingkit import _files
from lightning_trainingkit._files import claim, put_in_place, sweep, temporary, write_bytes, write_json
from tests.locked import elsewhere


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    seen = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(json.loads(path.read_text())), flush(descriptor)))
    write_json(path, {"a": 2})
    assert seen[0] == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 2}
    assert os.listdir(tmp_path) == ["file.json"]  # noqa: PTH208


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as on a full disk, a part of the file is written
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bytes(tmp_path / "page.html", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        temporary(tmp_path / "sharded").mkdir()
        (temporary(tmp_path / "sharded") / content).touch()
        put_in_place(tmp_path / "sharded")
    assert {file.name for file in (tmp_path / "sharded").iterdir()} == {"new", ".trainingkit"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_folder_of_the_user_is_never_replaced(tmp_path, kind):
    path = tmp_path / "last.ckpt"
    path.mkdir()
    (path / "mine").write_text("precious")
    if kind == "file":
        temporary(path).touch()
    else:
        temporary(path).mkdir()
    with pytest.raises(IsADirectoryError, match=r"`.*last.ckpt` must be free for a file, got a folder"):
        put_in_place(path)
    assert (path / "mine").read_text() == "precious"
    assert os.listdir(tmp_path) == ["last.ckpt"]  # noqa: PTH208


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target.json").write_text("precious")
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")
    write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "target.json").read_text() == "precious"
    assert json.loads((tmp_path / "link.json").read_text()) == {"a": 1}


def test_a_claimed_name_is_taken_until_its_file_is_there_and_then_by_the_file(tmp_path):
    path = tmp_path / "below" / "best.ckpt"
    assert claim(path)
    assert not claim(path)
    temporary(path).touch()
    put_in_place(path)
    assert not claim(path)
    assert os.listdir(path.parent) == ["best.ckpt"]  # noqa: PTH208


@pytest.fixture
def gone(tmp_path, monkeypatch):
    """Make the temporary file of a process whose number is free here, as one in another container is."""
    monkeypatch.setattr(_files, "is_running", lambda number: number != 4711)

    def make(path):
        path.parent.mkdir(exist_ok=True)
        left = temporary(path)
        left = left.with_name(left.name.replace(f"-{os.getpid()}.tmp", "-4711.tmp"))
        left.touch()
        return left

    return make


@pytest.mark.parametrize("held", ["a", "a/b", None])
def test_what_another_process_holds_is_not_swept(tmp_path, gone, held):
    files = {name: gone(tmp_path / name / "x.ckpt") for name in ("a", "a/b", "c")}
    alive = temporary(tmp_path / "mine.ckpt")
    alive.touch()
    with elsewhere(tmp_path / held) if held else contextlib.nullcontext():
        sweep(tmp_path)
    assert alive.exists()
    assert {name for name, file in files.items() if file.exists()} == {"a": {"a", "a/b"}, "a/b": {"a/b"}, None: set()}[
        held
    ]
    sweep(tmp_path)
    assert not any(file.exists() for file in files.values())


def test_a_file_that_another_process_holds_is_not_swept_and_a_folder_is(tmp_path, gone):
    file = gone(tmp_path / "x.pt")
    folder = gone(tmp_path / "y.ckpt")
    folder.unlink()
    (folder / "shard").mkdir(parents=True)
    with elsewhere(file):
        sweep(tmp_path)
    assert file.exists()
    assert not folder.exists()


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "file.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": 1}
