"""Read each run in a separate process within a time limit. So no file can block or end this process."""

import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from tempfile import TemporaryDirectory

from lightning_trainingkit.dashboards.read.packing import Found, unpack
from lightning_trainingkit.dashboards.read.read_run import read_run
from lightning_trainingkit.dashboards.read.run_files import RunFiles

__all__ = ["read_all"]

_SECONDS = 5.0
_SECONDS_PER_MB = 5.0
_SECONDS_TO_START = 15.0  # for imports, on a busy machine
_MOST_PROCESSES = 16  # on a machine of many cores and many users; each takes 100 MB
# No prompt, no account, no network: only the files are read. Threads of numpy would only take memory.
_ENVIRONMENT = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "OPENBLAS_NUM_THREADS": "1"}
_START = """
import sys
sys.path[:] = sys.argv[1:]  # before any import: the current folder may hold a json.py or numpy.py
from lightning_trainingkit.dashboards.read.worker import main
main()
"""


def read_all(runs: Sequence[RunFiles]) -> Iterator[tuple[RunFiles, Found]]:
    """Read runs, as many at once as this process has cores, up to 16, the largest first.

    No thread is started. A page may be written at the end of a process, when Python starts no threads.

    Yields:
        A run's files and its records, in the order in which the reading ends.
    """
    todo = sorted(runs, key=RunFiles.size)
    if os.name != "posix":  # other systems can't wait for several pipes
        yield from ((files, read_run(files)) for files in reversed(todo))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = min(cores, _MOST_PROCESSES)
    workers: list[_Worker] = []
    folder = TemporaryDirectory(prefix="trainingkit-", ignore_cleanup_errors=True)
    try:
        with selectors.DefaultSelector() as answers:
            while todo or workers:
                while todo and len(workers) < most:
                    workers.append(_Worker(folder.name))
                    answers.register(workers[-1].output, selectors.EVENT_READ, workers[-1])
                    workers[-1].give(todo.pop())
                wait = min(worker.until for worker in workers) - time.monotonic()
                ready = [key.data for key, _ in answers.select(max(0.0, wait))]
                for worker in [*workers]:
                    found = worker.answer(worker in ready)
                    if found is None:
                        continue
                    yield worker.files, found
                    if worker.lives and todo:
                        worker.give(todo.pop())
                    else:
                        answers.unregister(worker.output)
                        workers.remove(worker)
                        worker.end()
    finally:
        for worker in workers:
            worker.end()
        folder.cleanup()


class _Worker:
    """A process that reads one run at a time.

    Args:
        folder: For its temporary files: W&B makes folders at its import, which a killed process cannot remove.
    """

    files: RunFiles

    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, sys.path)],
            env=os.environ | {"TMPDIR": folder, **_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its child processes end with it
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.input = self.process.stdin
        self.lives = True
        self.until = self._seconds = 0.0
        self._extra = _SECONDS_TO_START
        self._heard = bytearray()

    def give(self, files: RunFiles) -> None:
        """Give the process a run to read."""
        self.files, self._seconds = files, _SECONDS + _SECONDS_PER_MB * files.size() / 1e6
        self.until = time.monotonic() + self._seconds + self._extra
        self._extra = 0.0
        self._heard.clear()
        with suppress(OSError):  # the process has ended, and `answer` says so
            self.input.write(f"{json.dumps([str(path) for path in files.paths])}\n".encode())
            self.input.flush()

    def answer(self, ready: bool) -> Found | None:
        """The run or the reason for its absence; None while the process reads."""
        if ready:
            part = os.read(self.output.fileno(), 1 << 20)
            self._heard += part
            if not part:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(1)
                return self._lost(f"it ends the process that reads it (status {self.process.returncode}).")
            if len(self._heard) >= 8 and len(self._heard) == struct.unpack_from("<Q", self._heard)[0]:
                try:
                    return unpack(bytes(self._heard), self.files.paths)
                except ValueError as error:
                    return Found([], {self.files.paths[-1]: str(error)})
        elif time.monotonic() > self.until:
            return self._lost(f"it must be read within {self._seconds:.0f} s, got no end.")
        return None

    def end(self) -> None:
        """End the process and its child processes."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(OSError):
            self.input.close()
        self.output.close()

    def _lost(self, why: str) -> Found:
        self.lives = False
        return Found([], {self.files.paths[-1]: why})
