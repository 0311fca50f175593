"""Note the folders in which other loggers of the Trainer record the training of a W&B run."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from lightning_trainingkit._files import write_json
from lightning_trainingkit.dashboards.read.regular_file import read_regular_file

__all__ = ["note_log_dirs", "noted_log_dirs"]

_FILE = "other_loggers.json"
_MAX_BYTES = 100_000


def note_log_dirs(run_folder: str | Path, log_dirs: Iterable[str | Path]) -> None:
    """Write a file into a W&B run's folder that names the folders of the Trainer's other loggers.

    The paths are relative to the run's folder. They stay right if all folders are moved together.

    Args:
        run_folder: The run's folder, which holds ``run-ID.wandb``.
        log_dirs: The ``log_dir`` of each other logger.

    Raises:
        OSError: If the folder cannot be written to.
    """
    folder = Path(run_folder).resolve()
    write_json(folder / _FILE, {"log_dirs": [os.path.relpath(Path(each).resolve(), folder) for each in log_dirs]})


def noted_log_dirs(run_folder: str | Path) -> list[Path]:
    """Return the folders that :func:`note_log_dirs` wrote, resolved. The list is empty if the file can't be read."""
    folder = Path(run_folder).resolve()
    try:
        found = json.loads(read_regular_file(folder / _FILE, _MAX_BYTES))["log_dirs"]
        return [(folder / each).resolve() for each in found if isinstance(each, str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, RuntimeError):
        return []
