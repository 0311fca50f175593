"""Store a run's records in a cache file beside its files. The cache is valid until a file changes."""

import json
from contextlib import suppress
from pathlib import Path

from lightning_trainingkit._files import write_bytes
from lightning_trainingkit.dashboards.read.packing import Found, pack, unpack
from lightning_trainingkit.dashboards.read.regular_file import kind_of
from lightning_trainingkit.dashboards.read.run_files import RunFiles

__all__ = ["cache_path", "load", "save", "signature"]

_FORMAT = 3
_MAX_BYTES = 1_000_000_000


def cache_path(files: RunFiles) -> Path:
    """Path of the cache file, in the folder of the newest file and with the run's name."""
    return files.folder / f"dashboard{'-' if files.name else ''}{files.name}.cache"


def load(files: RunFiles) -> Found | None:
    """Load a run's cache file, or None if it is missing or damaged, or if one of the run's files has changed."""
    path = cache_path(files)
    try:
        expected = _first_line(signature(files))
        if kind_of(path):
            return None
        with path.open("rb") as file:
            if file.read(len(expected)) != expected:  # before the rest is read
                return None
            content = file.read(_MAX_BYTES)
        return unpack(content, files.paths)
    except (OSError, ValueError, MemoryError):
        return None


def save(files: RunFiles, found: Found, of: str) -> None:
    """Write a run's cache file. No error is raised if the folder can't be written to.

    Args:
        files: The run's files.
        found: The records.
        of: ``signature(files)`` from before the files were read.
    """
    with suppress(OSError):
        write_bytes(cache_path(files), _first_line(of) + pack(found, files.paths))


def signature(files: RunFiles) -> str:
    """Return a text that changes with each file, with the ``hparams.yaml`` beside it, and with the cache's format."""
    found: list[object] = [_FORMAT]
    for path in (*files.paths, *([] if files.by_wandb else [files.folder / "hparams.yaml"])):
        with suppress(OSError):
            stat = path.stat()
            found += [path.parent.name if files.by_wandb else "", path.name, stat.st_size, stat.st_mtime_ns]
    return json.dumps(found)


def _first_line(of: str) -> bytes:
    line = f"lightning_trainingkit dashboard cache {of}"
    return f"{line}{' ' * (-len(line) % 8 + 7)}\n".encode()
