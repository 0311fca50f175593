"""Keep a folder of checkpoints to one run at a time."""

import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from lightning_trainingkit._lightning import L, rank_zero_info
from lightning_trainingkit._locks import Lock, hold

__all__ = ["hold_folder"]


def hold_folder(trainer: L.Trainer, folder: str | Path) -> Lock | None:
    """Lock a folder for all ranks of this run, until the lock is deleted or the process ends.

    Returns:
        The lock on rank 0. None on other ranks, and on a file system without locks.

    Raises:
        ValueError: On all ranks, if another live run holds the folder.
    """
    lock, taken = None, False
    if trainer.is_global_zero:
        with suppress(OSError):  # Lightning raises the error of a folder that cannot be made
            Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            lock = hold(folder)
        except BlockingIOError:
            taken = True
    if trainer.strategy.broadcast(taken):
        raise ValueError(
            f"`dirpath` must be a folder that no other run is writing to, got {folder}, where another run is training. "
            "Wait for its end, stop it, or give each run its own folder."
        )
    if lock is None and trainer.is_global_zero and sys.platform != "win32":
        _say_without_locks(str(folder))
    return lock


@lru_cache
def _say_without_locks(folder: str) -> None:
    rank_zero_info(f"The file system of {folder} has no locks: nothing stops another run from writing there too.")
