import os
import time

import pytest

from lightning_trainingkit.dashboards.read import wandb_files
from lightning_trainingkit.dashboards.read.record import UnreadableError
from lightning_trainingkit.dashboards.read.wandb_inspect import read_by_inspect
from tests.dashboards.read.made_log import framed, run, values


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run-made.wandb"
    path.write_bytes(framed([run(), values(1, loss=2.0), values(2, loss=1.0)]))
    return path


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """Puts a program in the place of ``python -m wandb``."""

    def replace(code):
        (tmp_path / "stands in").mkdir()
        (tmp_path / "stands in" / "wandb.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stands in"))

    return replace


def test_an_old_wandb_is_named(path, wandb):
    wandb("import sys; sys.exit('Error: No such command \"leet\".')")
    with pytest.raises(UnreadableError, match=r"^W&B 0.31 or newer is needed to read it: pip install -U wandb.$"):
        read_by_inspect(path)


def test_a_reader_that_hangs_is_ended_with_what_it_started(path, wandb):
    wandb(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(path.with_name('child'))!r}, 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    start = time.monotonic()
    with pytest.raises(UnreadableError, match="took too long and was ended"):
        read_by_inspect(path, seconds=1.5)
    assert time.monotonic() - start < 5
    child = int(path.with_name("child").read_text())
    end = time.monotonic() + 5
    while running(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def running(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_lines_that_make_no_sense_are_counted(path, wandb):
    lines = [
        '{"num":1,"type":"run","run":{"run_id":"x","config":{"update":{"a":' + "[" * 5000 + "]" * 5000 + "}}}}",
        '{"num":1,"type":"run","run":{"run_id":"x","start_time":"soon"}}',
        '{"num":1,"type":"run","run":{"run_id":"x"}}',
        '{"num":2,"type":"history","history":{}}',
        '{"num":2,"type":"history"',
        '{"num":3,"type":"history","history":{"item":{"_step":1,"loss":2}}}',
    ]
    wandb(f"print({chr(10).join(lines)!r})")
    found = read_by_inspect(path)
    assert found.curves["loss"].values.tolist() == [2]
    assert found.note == "4 records could not be read"


def test_it_reads_where_wandbs_classes_or_its_framing_are_others(path, wandb, monkeypatch):
    wandb('print(\'{"num":1,"type":"run","run":{"run_id":"by the reader"}}\')')
    assert wandb_files.read_wandb_file(path).id == "made"
    with monkeypatch.context() as patch:
        patch.setitem(wandb_files._FIELDS, "HistoryItem", ("name_of_tomorrow",))
        assert wandb_files.read_wandb_file(path).id == "by the reader"
    with monkeypatch.context() as patch:
        patch.setitem(wandb_files._FIELDS, "MessageOfTomorrow", ("name",))
        assert wandb_files.read_wandb_file(path).id == "by the reader"
    content = bytearray(path.read_bytes())
    content[6] = 7
    path.write_bytes(content)
    assert wandb_files.read_wandb_file(path).id == "by the reader"
