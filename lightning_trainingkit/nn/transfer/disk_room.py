"""Room on a disk, reserved before anything is written to it."""

import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["DiskRoom"]


class DiskRoom:
    """A file without a name, handed out in memory-mapped pieces. It disappears with the process.

    The blocks of the file are allocated before a piece is mapped. Without room on the disk, a write to a mapped page
    would end the process with SIGBUS.

    Args:
        folder: Where the file lies. It is made if it does not exist.

    Raises:
        ValueError: If the folder cannot be written to, or the disk lacks the room.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._size = self._used = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file, name = tempfile.mkstemp(dir=folder, prefix="features-", suffix=".tmp")
            weakref.finalize(self, os.close, self._file)
            Path(name).unlink()
        except OSError as error:
            raise ValueError(
                f"`cache_features='disk'` must have a folder that can be written to, got {folder} ({error}). "
                "Give the Trainer another `default_root_dir`."
            ) from error

    def reserve(self, size: int) -> None:
        """Allocate ``size`` bytes in all."""
        if size <= self._size:
            return
        try:
            _allocate(self._file, self._size, size - self._size)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise ValueError(
                f"`cache_features='disk'` must have room for the features in {self.folder}, got "
                f"{(self._size + shutil.disk_usage(self.folder).free) / 2**30:.4g} GiB of {size / 2**30:.4g} GiB "
                f"({error.strerror}). Free the room, or give the Trainer another `default_root_dir`."
            ) from error
        self._size = size

    def take(self, size: int) -> Tensor:
        """Map the next ``size`` bytes as uint8, and allocate them if they were not reserved."""
        start, self._used = self._used, self._used + self.rounded(size)
        self.reserve(self._used)
        return torch.frombuffer(mmap.mmap(self._file, size, offset=start), dtype=torch.uint8)

    @staticmethod
    def rounded(size: int) -> int:
        """Bytes that a piece of ``size`` bytes takes up: whole pages."""
        return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY

    def clear(self) -> None:
        """Hand out the file from its start again. Pieces handed out before must not be used any more."""
        self._used = 0


def _allocate(file: int, start: int, size: int) -> None:
    """Allocate blocks of a file. Write zeros where the system has no call for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, size)
        return
    zeros = bytes(2**20)
    for position in range(start, start + size, len(zeros)):
        os.pwrite(file, zeros[: start + size - position], position)
    os.fsync(file)
