"""Tell whether the process that writes a run is still alive."""

import json
import math
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from lightning_trainingkit._files import write_json
from lightning_trainingkit.dashboards.read.regular_file import read_regular_file

__all__ = ["Heartbeat", "state"]

_FILE = "heartbeat.json"
_SECONDS = 10.0
_MAX_BYTES = 10_000
_SILENCE = 6 * _SECONDS  # a shared disk shows a file late


class Heartbeat:
    """Write a file beside a run every ten seconds, which says that the run's process is alive.

    - **Thread**: a background thread writes the file, also during a long step or validation. It ends with the process.
    - **Errors**: none is raised. In a folder that can't be written to, the run has no heartbeat.
    - **The run** itself is not changed.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / _FILE
        self._stopped = Event()
        self._fit_ended = False
        self._write()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def end_fit(self) -> None:
        """Write that the fit has ended. The run may stay open for tests, as long as the process lives."""
        self._fit_ended = True
        self._write()

    def stop(self) -> None:
        """Stop writing. The file stays. The run itself records that it has ended."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(_SECONDS):
            self._write()

    def _write(self) -> None:
        with suppress(OSError):
            write_json(self._path, {**_process(os.getpid()), "time": time.time(), "fit_ended": self._fit_ended})


def state(folder: str | Path) -> str | None:
    """The state of a run without an end, by the heartbeat in ``folder``; None if there is no valid heartbeat.

    - **finished**: its fit has ended, and the process keeps the run open for tests, or was killed later.
    - **running**: the process lives.
    - **killed**: the process is gone.

    - **A process of this machine**: the system says whether it is alive.
    - **A process of another machine** counts as dead after a minute without a new heartbeat.
    """
    try:
        beat = json.loads(read_regular_file(Path(folder) / _FILE, _MAX_BYTES))
        pid, last = int(beat["pid"]), float(beat["time"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not 0 < pid < 2**31 or not math.isfinite(last):
        return None
    if beat.get("fit_ended") is True:
        return "finished"
    here = _process(pid)
    if beat.get("where") == here["where"]:
        alive = here["began"] is not None and beat.get("began") == here["began"]
    else:
        alive = time.time() - last < _SILENCE
    return "running" if alive else "killed"


def _process(pid: int) -> dict[str, Any]:
    """Identify a process, also among processes that have the same number at another time.

    - ``where`` names the machine, its last boot and the name space of process numbers.
    - ``began`` is the start time of the process, None if the process is gone.
    - Systems without /proc know neither. There the age of the heartbeat decides.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        where = f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return {"pid": pid, "where": f"{platform.node()} {os.getpid()} {time.time()}", "began": None}
    try:
        # The name in parentheses may hold spaces. A zombie has ended, and waits for its parent to ask.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        began = None if fields[0] in "ZX" else fields[19]
    except OSError:
        began = None
    return {"pid": pid, "where": where, "began": began}
