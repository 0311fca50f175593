import copy
import errno
import fcntl
import pickle

import pytest

from lightning_trainingkit._locks import hold, is_held
from tests import process
from tests.locked import elsewhere, free


def test_one_lock_for_all_of_a_process_until_the_last_goes(tmp_path):
    first, second = hold(tmp_path), hold(tmp_path / ".." / tmp_path.name)
    assert first is second
    assert not is_held(tmp_path)
    copies = [copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    assert copies == [None, None]
    del first
    assert not free(tmp_path)
    del second
    assert free(tmp_path)


def test_what_another_process_holds(tmp_path):
    with elsewhere(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(BlockingIOError, match="Another process holds"):
            hold(tmp_path)
    assert not is_held(tmp_path)
    assert hold(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert hold(tmp_path) is None
    assert not is_held(tmp_path)


def test_a_path_that_is_not_there(tmp_path):
    assert hold(tmp_path / "none") is None
    assert not is_held(tmp_path / "none")


FORK = """
import os, sys, signal, time
from lightning_trainingkit._locks import hold
lock = hold(".")
if not (child := os.fork()):  # as a worker of a DataLoader
    time.sleep(60)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_parent(tmp_path):
    started = process.Process("-c", FORK, folder=tmp_path)
    assert started.wait().returncode == -9
    try:
        assert hold(tmp_path)
    finally:
        started.kill()
