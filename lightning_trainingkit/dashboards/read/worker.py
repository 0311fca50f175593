"""A process that reads one run after the other, for :mod:`lightning_trainingkit.dashboards.read.pool`.

Files may hold anything. A reader that hangs, or asks for all memory, is ended here or by the process that waits for it.
"""

import json
import math
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from lightning_trainingkit.dashboards.read.packing import Found, pack
from lightning_trainingkit.dashboards.read.read_run import read_run
from lightning_trainingkit.dashboards.read.run_files import RunFiles, why

__all__ = ["main"]

_BYTES = 1_500_000_000  # of memory
_BYTES_PER_BYTE = 50  # a number of 5 characters becomes two floats of Python in two lists


def main() -> None:
    """Read the runs that standard input names until it ends: each line is JSON, a list of paths and of seconds."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    # TensorBoard reads its files with TensorFlow, where that is installed, unless it finds this module: TensorFlow
    # alone may take longer to import than a file may take to be read.
    sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")
    for line in sys.stdin:
        paths, seconds = json.loads(line)
        files = RunFiles(tuple(map(Path, paths)))
        if hasattr(signal, "alarm"):  # ends this process, also where nobody waits for it any more
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
    with suppress(ValueError, OSError):  # less is allowed already
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
