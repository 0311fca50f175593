import json
import shutil

import pytest

from lightning_trainingkit.dashboards.other_loggers import note_log_dirs, noted_log_dirs


def test_what_was_noted_stays_true_when_all_of_it_is_moved(tmp_path):
    run, log_dir = tmp_path / "old/wandb/run-1", tmp_path / "old/lightning_logs/version_0"
    run.mkdir(parents=True)
    log_dir.mkdir(parents=True)
    note_log_dirs(run, [log_dir])
    assert noted_log_dirs(run) == [log_dir]
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert noted_log_dirs(tmp_path / "new/wandb/run-1") == [tmp_path / "new/lightning_logs/version_0"]


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "[1]", '{"log_dirs": 3}', '{"log_dirs": [3, null]}', " " * 200_000]
)
def test_a_damaged_file_says_nothing(tmp_path, text):
    (tmp_path / "other_loggers.json").write_text(text)
    assert noted_log_dirs(tmp_path) == []


def test_a_name_with_a_zero_byte_says_nothing(tmp_path):
    (tmp_path / "other_loggers.json").write_text(json.dumps({"log_dirs": ["a\0b"]}))
    assert noted_log_dirs(tmp_path) == []
