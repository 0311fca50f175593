"""Workers and trials that are killed: nothing is lost, nothing counts twice."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from lightning_trainingkit.tuning.trials.study import Study
from tests import postgres
from tests.process import Process

pytestmark = pytest.mark.slow


class Workers:
    """Workers of one study, and the hand that kills."""

    def __init__(self, storage, folder, trials, epochs=4, seconds=0.25, *ranks):
        self.folder = folder
        self._arguments = (storage, folder, trials, epochs, seconds, *ranks)
        self.running = []

    def start(self):
        self.running.append(Process(Path(__file__).with_name("trial_worker.py"), *self._arguments))

    def kill_one(self):
        """Kill the oldest worker in the midst of a trial. Its trial must end by itself."""
        attempt = self.saved()
        worker = self.running.pop(0)
        os.kill(worker.pid, signal.SIGKILL)  # not its session
        worker.wait()
        return attempt

    def kill_trial(self):
        """Kill a trial that has written a checkpoint."""
        attempt = self.saved()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((attempt / "pid-0").read_text()), signal.SIGKILL)
        return attempt

    def saved(self):
        """A running attempt with a checkpoint."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for checkpoint in sorted(self.folder.glob("trial-*/attempt-*/last.ckpt"), key=lambda each: each.parts[-3]):
                return checkpoint.parent
            time.sleep(0.02)
        raise AssertionError("no attempt has written a checkpoint")

    def finish(self):
        for worker in self.running:
            done = worker.wait(120)
            assert done.returncode == 0, done.stdout + done.stderr


def check(study, trials, epochs=4):
    results = study.results()
    assert [each.state for each in results] == ["completed"] * trials
    assert sum(each.state.name == "COMPLETE" for each in study.optuna.trials) == trials
    for result in results:
        assert [*result.reports] == [*range(1, epochs + 1)]
        assert result.outcome["resumed"] + result.outcome["epochs"] == epochs
    return {each.ticket: each for each in results}


def ticket(attempt):
    return int(attempt.parent.name.removeprefix("trial-"))


def test_two_workers_on_a_journal_and_three_kills(tmp_path):
    workers = Workers(tmp_path / "study.log", tmp_path, 8)
    workers.start()
    workers.start()
    killed = [workers.kill_trial()]
    time.sleep(0.5)
    killed.append(workers.kill_one())
    workers.start()
    time.sleep(1)
    killed.append(workers.kill_trial())
    workers.finish()
    results = check(Study.load(tmp_path / "study.log", "chaos"), 8)
    assert any(results[ticket(attempt)].outcome["resumed"] for attempt in killed)


def test_two_workers_on_postgresql_that_restarts(tmp_path):
    with postgres.running() as server:
        workers = Workers(server.url, tmp_path, 16, 2, 0.1)
        workers.start()
        workers.start()
        workers.kill_one()
        server.restart()
        workers.start()
        workers.finish()
        study = Study.load(server.url, "chaos")
        check(study, 16, 2)


def test_a_trial_on_two_ranks_is_pruned_without_a_hang(tmp_path):
    workers = Workers(tmp_path / "study.log", tmp_path, 2, 4, 0, 2)
    workers.start()
    workers.finish()
    first, second = Study.load(tmp_path / "study.log", "chaos").results()
    assert (first.state, second.state) == ("completed", "pruned")
    assert [*second.reports] == [1, 2]
