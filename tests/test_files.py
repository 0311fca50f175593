import json
import os

import pytest

from lightning_trainingkit._files import put_in_place, temporary, write_json


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


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        temporary(tmp_path / "sharded").mkdir()
        (temporary(tmp_path / "sharded") / content).touch()
        put_in_place(tmp_path / "sharded")
    assert [file.name for file in (tmp_path / "sharded").iterdir()] == ["new"]


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "file.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": 1}
