import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lightning_trainingkit.dashboards.read import pool
from lightning_trainingkit.dashboards.read.run_files import RunFiles

GOOD = "epoch,step,val_loss\n0,1,0.25\n"
AT_EXIT = """
import atexit, sys, threading
from lightning_trainingkit.dashboards.read.gather import gather
def report():
    print(sorted(run.id for run in gather([sys.argv[1]])[0]), flush=True)
atexit.register(report)
if sys.argv[2] == "thread":
    thread = threading.Thread(target=report)
    thread.start()
    thread.join()
sys.exit(1)
"""


def table(folder, name, content=GOOD):
    (folder / name).mkdir()
    (folder / name / "metrics.csv").write_text(content)
    return RunFiles((folder / name / "metrics.csv",))


@pytest.mark.parametrize("place", ["thread", "atexit"])
def test_runs_are_read_at_the_end_of_the_process_and_in_a_thread(tmp_path, place):
    for number in range(5):
        table(tmp_path, f"run{number}")
    done = subprocess.run([sys.executable, "-c", AT_EXIT, tmp_path, place], capture_output=True, text=True, check=False)
    expected = str([f"run{number}" for number in range(5)])
    assert set(done.stdout.split("\n")) == {expected, ""}
    assert (done.stderr, done.returncode) == ("", 1)


def test_a_file_that_takes_too_long_is_skipped_and_what_reads_it_is_ended(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "hanging.csv")  # nobody writes; a file may become a pipe after it was found
    monkeypatch.setattr(pool, "_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_SECONDS_TO_START", 1.5)
    runs = [RunFiles((tmp_path / "hanging.csv",)), *(table(tmp_path, f"run{number}") for number in range(3))]
    start, before = time.monotonic(), set(children(os.getpid()))
    found = dict(pool.read_all(runs))
    assert time.monotonic() - start < 6
    assert "must be read within" in found[runs[0]].unread[runs[0].paths[0]]
    assert all(found[run].records for run in runs[1:])
    assert set(children(os.getpid())) <= before


def test_a_process_that_dies_costs_its_file_alone_and_leaves_no_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", tempfile.tempdir)
    code = "import tempfile; tempfile.mkdtemp()\n"  # as W&B does at its import
    code += "import os, lightning_trainingkit.dashboards.read.csv_files as m\n"
    code += "read = m.read_csv_file\n"
    code += "m.read_csv_file = lambda path: os._exit(3) if 'bad' in str(path) else read(path)\n"
    monkeypatch.setattr(pool, "_START", pool._START.replace("main()", code + "main()", 1))
    runs = [table(tmp_path, name) for name in ("bad", "good", "bad2")]
    found = dict(pool.read_all(runs))
    assert [len(found[run].records) for run in runs] == [0, 1, 0]
    assert "(status 3)" in next(iter(found[runs[0]].unread.values()))
    assert not [*(tmp_path / "temporary").iterdir()]


def test_a_file_that_asks_for_all_memory_is_skipped(tmp_path, monkeypatch):
    code = "import lightning_trainingkit.dashboards.read.csv_files as m\n"
    code += "read = m.read_csv_file\n"
    code += "m.read_csv_file = lambda path: bytearray(4_000_000_000) if 'bad' in str(path) else read(path)\n"
    monkeypatch.setattr(pool, "_START", pool._START.replace("main()", code + "main()", 1))
    runs = [table(tmp_path, name) for name in ("bad", "good")]
    found = dict(pool.read_all(runs))
    assert list(found[runs[0]].unread.values()) == ["it needs more memory than a file of its size should."]
    assert found[runs[1]].records


def test_readers_end_after_the_process_that_waits_for_them_was_killed(tmp_path):
    os.mkfifo(tmp_path / "hanging.csv")
    code = "import sys; from pathlib import Path; from lightning_trainingkit.dashboards.read import pool\n"
    code += "from lightning_trainingkit.dashboards.read.run_files import RunFiles\n"
    code += "pool._SECONDS = 100.0\n"
    code += "list(pool.read_all([RunFiles((Path(sys.argv[1]),))]))"
    parent = subprocess.Popen([sys.executable, "-c", code, tmp_path / "hanging.csv"])
    until(lambda: children(parent.pid))
    (reader,) = children(parent.pid)
    parent.kill()
    parent.wait()
    until(lambda: not lives(reader))


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_nothing_is_imported_from_the_folder_in_which_the_command_runs(tmp_path, monkeypatch):
    for name in ("json", "numpy", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    run = table(tmp_path, "run")
    monkeypatch.setattr(sys, "path", [entry or os.devnull for entry in sys.path])
    assert dict(pool.read_all([run]))[run].records


def test_reading_imports_neither_torch_nor_lightning(tmp_path):
    table(tmp_path, "run")
    code = "import sys; from pathlib import Path; from lightning_trainingkit.dashboards.read.read_run import read_run\n"
    code += "from lightning_trainingkit.dashboards.read import worker\n"
    code += "from lightning_trainingkit.dashboards.read.run_files import RunFiles\n"
    code += "read_run(RunFiles((Path(sys.argv[1]),)))\n"
    code += "print({'torch', 'lightning', 'wandb', 'rich', 'tensorboard'} & set(sys.modules))"
    command = [sys.executable, "-c", code, tmp_path / "run" / "metrics.csv"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "set()\n"
