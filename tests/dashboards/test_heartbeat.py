import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lightning_trainingkit.dashboards import heartbeat
from tests.process import ROOT, environment


@pytest.fixture
def other(tmp_path):
    script = Path(__file__).with_name("beating.py")
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], stdout=subprocess.PIPE, env=environment(PYTHONPATH=str(ROOT))
    )
    assert process.stdout.readline() == b"begun\n"
    yield process
    process.kill()
    process.communicate()


def change(folder, **values):
    path = folder / "heartbeat.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_process_lives_until_it_is_killed(other, tmp_path):
    assert heartbeat.state(tmp_path) == "running"
    other.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # it is a zombie then
    assert heartbeat.state(tmp_path) == "killed"
    other.wait()
    assert heartbeat.state(tmp_path) == "killed"


def test_another_process_of_the_same_number_is_another(other, tmp_path):
    change(tmp_path, began="1")
    assert heartbeat.state(tmp_path) == "killed"


def test_another_machine_is_dead_after_a_minute_of_silence(other, tmp_path):
    change(tmp_path, where="elsewhere", time=time.time() - 30)
    assert heartbeat.state(tmp_path) == "running"
    change(tmp_path, where="elsewhere", time=time.time() - 90)
    assert heartbeat.state(tmp_path) == "killed"


def test_no_heartbeat_and_half_a_one_say_nothing(tmp_path):
    assert heartbeat.state(tmp_path) is None
    for text in ("", "{", "[]", '{"pid": 1}', '{"pid": "x", "time": 1}'):
        (tmp_path / "heartbeat.json").write_text(text)
        assert heartbeat.state(tmp_path) is None


def test_it_beats_until_stopped_and_never_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_SECONDS", 0.05)
    before = set(threading.enumerate())  # runs of earlier tests in this process may beat until its end
    beat = heartbeat.Heartbeat(tmp_path)
    first = (tmp_path / "heartbeat.json").stat().st_mtime_ns
    end = time.monotonic() + 5
    while (tmp_path / "heartbeat.json").stat().st_mtime_ns == first:
        assert time.monotonic() < end
        time.sleep(0.02)
    beat.stop()
    assert not set(threading.enumerate()) - before
    (tmp_path / "file").write_text("")
    heartbeat.Heartbeat(tmp_path / "file" / "below").stop()


def test_a_run_whose_fit_has_ended_is_finished_whatever_becomes_of_the_process(tmp_path):
    beat = heartbeat.Heartbeat(tmp_path)
    assert heartbeat.state(tmp_path) == "running"
    beat.end_fit()
    beat.stop()
    assert heartbeat.state(tmp_path) == "finished"
    change(tmp_path, began="1")
    assert heartbeat.state(tmp_path) == "finished"
