import os
import signal
import time

import optuna
import pytest

from lightning_trainingkit.tuning.trials.journal import open_journal
from lightning_trainingkit.tuning.trials.storage import open_storage
from tests.process import Process


def test_half_a_line_of_a_killed_worker_is_removed(tmp_path):
    path = tmp_path / "study.log"
    optuna.create_study(storage=open_journal(path), study_name="first")
    with path.open("ab") as file:
        file.write(b'{"op_code":')
    optuna.create_study(storage=open_journal(path), study_name="second")
    assert set(optuna.get_all_study_names(open_journal(path))) == {"first", "second"}


def test_a_worker_that_is_killed_with_the_lock_blocks_nobody(tmp_path):
    path = tmp_path / "study.log"
    path.touch()
    holder = Process(
        "-c",
        "import sys, time\nfrom pathlib import Path\n"
        "from lightning_trainingkit.tuning.trials.journal import _KernelLock\n"
        "_KernelLock(Path(sys.argv[1])).acquire(); Path(sys.argv[1] + '.held').touch(); time.sleep(60)",
        path,
    )
    end = time.monotonic() + 60
    while not path.with_name("study.log.held").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(holder.pid, signal.SIGKILL)
    optuna.create_study(storage=open_journal(path), study_name="first")
    holder.wait()


def test_a_database_out_of_reach(monkeypatch):
    monkeypatch.setattr("lightning_trainingkit.tuning.trials.storage.OPENING", 0.0)
    with pytest.raises(ConnectionError, match=r"must be within reach, got sqlite:////no/such/folder/s.db: .*unable"):
        open_storage("sqlite:////no/such/folder/s.db")
