"""How the tests start processes of their own."""

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = "TRAININGKIT_TESTS"
"""Names the folder that all processes of one test run share."""


def environment(**extra):
    """The environment of a user's shell: one thread, nothing sent anywhere, and not this process's own W&B service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_SERVICE", "TRAININGKIT_"))}
    return kept | {"OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"} | extra


class Process:
    """A running ``python SCRIPT ARGUMENTS`` or ``python -c CODE ARGUMENTS``, forked from one that has torch imported.

    Args:
        arguments: What would stand behind ``python``.
        folder: Where it runs.
        env: Its whole environment.
    """

    def __init__(self, *arguments, folder=".", env=None):
        self.arguments = [*map(str, arguments)]
        self._outputs = tempfile.mkdtemp(dir=os.environ[SHARED])
        request = {
            "arguments": self.arguments,
            "folder": str(Path(folder).absolute()),
            "environment": environment() if env is None else env,
            **{name: str(Path(self._outputs, name)) for name in ("out", "err")},
        }
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(_server())
        self.connection.sendall(f"{json.dumps(request)}\n".encode())
        self.connection.settimeout(60)
        self.pid = self._answer()

    def wait(self, timeout=300):
        """Return the exit status and what it printed, on both channels; a process that takes longer is killed."""
        self.connection.settimeout(timeout)
        try:
            code = self._answer()
        except TimeoutError:
            self.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout, *self._printed()) from None
        finally:
            self.connection.close()
        return subprocess.CompletedProcess(self.arguments, code, *self._printed())

    def kill(self):
        """End it, and what it has started in its session, by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _answer(self):
        line = b""
        while not line.endswith(b"\n"):  # no buffer: `select` must see what was not read
            line += self.connection.recv(1)
        return int(line)

    def _printed(self):
        paths = [Path(self._outputs, name) for name in ("out", "err")]
        return [path.read_text(errors="replace") if path.exists() else "" for path in paths]


def run(*arguments, folder=".", env=None, timeout=300, ok=True):
    """Run ``python ARGUMENTS`` to its end, and check that it succeeds."""
    done = Process(*arguments, folder=folder, env=env).wait(timeout)
    assert not ok or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def run_ranks(script, *arguments, folder, ranks=2, timeout=120):
    """Run a script on gloo ranks, with the variables that torchrun would set; all end when one fails."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    started = [
        Process(
            ROOT / "tests/rank.py",
            script,
            *arguments,
            folder=folder,
            env=environment(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks), **shared
            ),
        )
        for rank in range(ranks)
    ]
    running, end = {each.connection: each for each in started}, time.monotonic() + timeout
    try:
        while running:
            for ready in select.select(running, [], [], max(0, end - time.monotonic()))[0] or running:
                done = running.pop(ready).wait(1)
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
                break
    finally:
        for each in started:
            each.kill()
            each.connection.close()


@functools.cache
def _server():
    """Where the server of this test run listens."""
    folder = Path(os.environ[SHARED])
    address = folder / "socket"
    (folder / "wanted").touch()
    end = time.monotonic() + 120
    while not address.exists():
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)
    return str(address)


def share_a_server():
    """Start the server once a process of this test run wants it; return what stops it, None in a run's workers."""
    if SHARED in os.environ:
        return None
    folder = Path(tempfile.mkdtemp(prefix="tk-"))
    os.environ[SHARED] = str(folder)
    over = threading.Event()

    def wait_and_start():
        while not (folder / "wanted").exists():
            if over.wait(0.1):
                return
        with (folder / "log").open("wb") as log:
            command = [sys.executable, ROOT / "tests/fork_server.py", folder / "socket"]
            env = environment(PYTHONPATH=str(ROOT))
            server = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        over.wait()
        server.kill()
        server.wait()

    thread = threading.Thread(target=wait_and_start, daemon=True)
    thread.start()

    def stop():
        over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[SHARED]

    return stop
