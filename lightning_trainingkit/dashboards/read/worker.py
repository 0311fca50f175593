"""A process that reads runs one by one, for :mod:`lightning_trainingkit.dashboards.read.pool`.

Files may hold anything. A reader that hangs or needs too much memory is ended here, or by the waiting process.
"""

import json
import math
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from lightning_trainingkit.dashboards.read.packing import Found, pack
from lightning_trainingkit.dashboards.read.read_run import read_run
from lightning_trainingkit.dashboards.read.run_files import RunFiles, why

__all__ = ["main"]

_BYTES = 1_500_000_000  # limit of memory
_BYTES_PER_BYTE = 50  # a number of 5 characters becomes two floats of Python in two lists


def main() -> None:
    """Read the runs that standard input names until it ends: each line is JSON, a list of paths and of seconds."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints is no answer
    for line in sys.stdin:
        paths, seconds = json.loads(line)
        files = RunFiles(tuple(map(Path, paths)))
        if hasattr(signal, "alarm"):  # ends this process, even if no process waits for it any more
            signal.alarm(math.ceil(seconds))
        _limit_memory(_BYTES + _BYTES_PER_BYTE * files.size())
        try:
            answer = pack(read_run(files), files.paths)
        except (Exception, MemoryError) as error:
            answer = pack(Found([], {files.paths[-1]: why(error)}), files.paths)
        answers.write(answer)
        answers.flush()
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _limit_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    with suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
