"""Wait until W&B has written a run's end."""

import time
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.read.wandb_files import record_classes
from lightning_trainingkit.dashboards.read.wandb_log import WandbLog

__all__ = ["wait_for_end"]


def wait_for_end(path: Path, seconds: float = 2.0) -> bool:
    """Wait until ``run-ID.wandb`` holds the run's end. W&B writes it up to 20 ms after ``run.finish()`` returns.

    Args:
        path: The run's file.
        seconds: Longest time to wait.

    Returns:
        Whether the file holds the end.
    """
    classes = record_classes()
    until = time.monotonic() + seconds
    while not (ended := classes is not None and _has_ended(path, classes)) and time.monotonic() < until:
        time.sleep(0.005)
    return ended


def _has_ended(path: Path, classes: Any) -> bool:
    try:
        with path.open("rb") as file:
            log = WandbLog(file)
            log.skip_to_tail()
            return any(classes.Record.FromString(payload).HasField("exit") for payload in log)
    except Exception:  # no file, no header yet, or a record that nothing can decode
        return False
