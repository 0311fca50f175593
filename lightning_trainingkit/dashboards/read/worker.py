"""A process that reads runs one by one, for :mod:`lightning_trainingkit.dashboards.read.pool`.

Files may hold anything. A reader that hangs is ended by the process that waits for it, and ends with that process.
"""

import json
import os
import select
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from lightning_trainingkit.dashboards.read.packing import Found, pack
from lightning_trainingkit.dashboards.read.read_run import read_run
from lightning_trainingkit.dashboards.read.run_files import RunFiles, why

__all__ = ["main"]

_BYTES = 1_500_000_000  # limit of memory
_BYTES_PER_BYTE = 50  # a number of 5 characters becomes two floats of Python in two lists


def main() -> None:
    """Read the runs that standard input names until it ends: each line is JSON, a list of paths."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints is no answer
    # TensorBoard reads its files with TensorFlow, where that is installed, unless it finds this module: TensorFlow
    # alone may take longer to import than a file may take to be read.
    sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for line in sys.stdin:
        files = RunFiles(tuple(map(Path, json.loads(line))))
        _limit_memory(_BYTES + _BYTES_PER_BYTE * files.size())
        try:
            answer = pack(read_run(files), files.paths)
        except (Exception, MemoryError) as error:
            answer = pack(Found([], {files.paths[-1]: why(error)}), files.paths)
        answers.write(answer)
        answers.flush()


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of standard input, since then nobody waits for an answer."""
    waiting = select.poll()
    waiting.register(0, 0)
    waiting.poll()
    os._exit(1)


def _limit_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    with suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
