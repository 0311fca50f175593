"""Read a checkpoint: check that it is undamaged, and run no code from it."""

import logging
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["RUN", "check_run", "explain_failure", "read_checkpoint"]

RUN = "trainingkit_run"
"""Key of the run's token in a callback's state and in a manifest."""


def read_checkpoint(path: str | Path, load: Callable[[str | Path], Any] | None = None) -> Any:
    """Read a checkpoint onto the CPU, after a check of its checksums, which ``torch.load`` ignores.

    Args:
        path: The file, or the folder of a sharded checkpoint, which has no checksums.
        load: Function to read the path with, in place of ``torch.load``. It must run no code from the file.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is truncated, damaged, no checkpoint, or would run code on loading.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "net.pt"
        >>> torch.save({"epoch": 3}, path)
        >>> read_checkpoint(path)
        {'epoch': 3}
    """
    with explain_failure(path):
        if (file := Path(path)).is_file():
            stat = file.stat()
            _check_sums(file.absolute(), stat.st_mtime_ns, stat.st_size)
        return torch.load(path, map_location="cpu", weights_only=True) if load is None else load(path)


@lru_cache(maxsize=1024)
def _check_sums(file: Path, _mtime: int, _size: int) -> None:
    """Compare each record with its CRC32, once for each version of a file."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(record.CRC for record in archive.infolist()):  # all are 0 after `set_crc32_options(False)`
                if record := archive.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {record} is wrong")
                return
    log = logging.getLogger("lightning_trainingkit")
    log.warning("%s has no checksums: damage to its numbers would not show.", file)


def check_run(path: str | Path, content: Any, run: str) -> None:
    """Raise a ValueError if a checkpoint holds the token of another run.

    Args:
        path: The file, for the error.
        content: The file's content.
        run: Token of the run. Empty if unknown.
    """
    callbacks = content.get("callbacks") if isinstance(content, Mapping) else None
    states = callbacks.values() if isinstance(callbacks, Mapping) else ()
    found = {state[RUN] for state in states if isinstance(state, Mapping) and RUN in state}
    if run and found and run not in found:
        raise ValueError(
            f"`{path}` must be the file of this run, got a file that another run has put in its place. "
            "Give each run its own `dirpath`."
        )


@contextmanager
def explain_failure(name: str | Path) -> Iterator[None]:
    """Turn an error on reading a checkpoint into a FileNotFoundError or ValueError that names the file and its fault.

    A MemoryError passes.

    Args:
        name: The file's path.

    Example:
        >>> with explain_failure("nowhere.ckpt"):
        ...     torch.load("nowhere.ckpt", weights_only=True)
        Traceback (most recent call last):
        FileNotFoundError: `nowhere.ckpt` must be a checkpoint, got no such file. Was it moved or deleted?
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"`{name}` must be a checkpoint, got no such file. Was it moved or deleted?") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ValueError(f"`{name}` must be a file that can be read, got {error.strerror or error}.") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise any error
        if isinstance(error, pickle.UnpicklingError) and (held := _code(name)):
            raise ValueError(
                f"`{name}` must be tensors and plain values alone, got {held}, which would run code when a checkpoint "
                'is loaded. Leave it out, as in `self.save_hyperparameters(ignore=["model"])`.'
            ) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"`{name}` must be a whole checkpoint written by torch, got a truncated, damaged or foreign file "
            f"({reason}). Use another one."
        ) from error


def _code(path: str | Path) -> str:
    """Return the names in a file that would run code. Empty if the file cannot be read."""
    try:
        return ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file
        return ""
