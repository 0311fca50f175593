"""The log in which W&B keeps a run: LevelDB's framing behind a header of seven bytes.

A file is a sequence of blocks of 32 KiB; the first begins with ``:W&B``, the magic number 0xBEE1 and a version. A block
holds chunks: CRC-32 of kind and data, length of the data, kind, data. Less than seven bytes at its end are padding.
A record is one FULL chunk, or a FIRST, some MIDDLE and a LAST. Unlike LevelDB, W&B takes zlib's CRC as it is.
"""

import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

from lightning_trainingkit.dashboards.read.record import UnreadableError

__all__ = ["WandbLog"]

_BLOCK = 32768
_CHUNK = struct.Struct("<IHB")  # the checksum, the length of the data, the kind
_FULL, _FIRST, _LAST = 1, 2, 4
_KINDS = re.compile(rb"[\x01-\x04]")

_HEADER = struct.Struct("<4sHB")
_MAGIC = (b":W&B", 0xBEE1)

_LARGEST_RECORD = 16 << 20  # W&B itself advises against rows and settings of more than a few megabytes
_SEARCHED = 256 << 20  # bytes whose checksum is computed in search of chunks behind damaged ones: about 0.2 s


class WandbLog:
    """The records of a log, one after the other, and what was damaged among them.

    A chunk whose checksum is wrong is left out, and so is the record that it belongs to. Reading goes on at the next
    chunk in the block whose checksum is right, else at the next block. What is appended meanwhile is not read.

    Args:
        file: Stands at its beginning.

    Attributes:
        version: Of the framing; only 0 is known.
        damaged: Number of places at which records were damaged and left out.
        damaged_bytes: How many bytes these places have, about.
        cut_off: Whether the file ends within a record, as that of a run that goes on or was killed may do.

    Raises:
        UnreadableError: If it is not W&B's.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, os.fstat(file.fileno()).st_size
        header = self._read(_HEADER.size)
        if not header:
            raise UnreadableError("it is empty.")
        if len(header) < _HEADER.size or _HEADER.unpack(header)[:2] != _MAGIC:
            raise UnreadableError(f"it is no log of W&B's, which begins with ':W&B': it begins with {header[:4]!r}.")
        self.version: int = header[-1]
        self.damaged = self.damaged_bytes = 0
        self.cut_off = False
        self._searched = 0
        self._within_damage = False
        self._doubtful: int | None = None  # bytes that are either damaged or the end that is cut off

    def __iter__(self) -> Iterator[bytes]:
        record: list[bytes] = []  # the chunks of a record whose LAST is still to come
        size = 0  # of that, 0 outside of records
        skipping = False  # the rest of a record of which something is lost
        full = _BLOCK - _HEADER.size  # length of the block where the file goes on
        while block := self._read(full):
            position = 0
            while position + _CHUNK.size <= len(block):
                checksum, length, kind = _CHUNK.unpack_from(block, position)
                start, stop = position + _CHUNK.size, position + _CHUNK.size + length
                if stop > len(block) or not 1 <= kind <= 4 or crc32(block[start - 1 : stop]) != checksum:
                    position = self._after_damage(block, position, full, size)
                    record, size, skipping = [], 0, True
                    continue
                if self._doubtful is not None:  # the file goes on: it was damaged
                    self._count(0)
                position, self._within_damage = stop, False
                if kind in (_FULL, _FIRST):
                    if size:  # the rest of the record before is missing
                        self._count(size)
                    record, size, skipping = [], 0, False
                    if kind == _FULL:
                        yield block[start:stop]
                        continue
                elif not size:
                    if not skipping:  # it has no FIRST
                        self._count(length)
                        skipping = True
                    continue
                record.append(block[start:stop])
                size += _CHUNK.size + length
                if size > _LARGEST_RECORD:
                    self._count(size)
                    record, size, skipping = [], 0, True
                elif kind == _LAST:
                    yield b"".join(record)
                    record, size = [], 0
            self.cut_off |= position < len(block) < full
            full = _BLOCK
        self.cut_off |= bool(size) or self._doubtful is not None

    def _after_damage(self, block: bytes, position: int, full: int, size: int) -> int:
        """Where the block goes on behind a damaged chunk: at one whose checksum is right, else at its end.

        Args:
            block: What there is of the block.
            position: Where the damaged chunk begins.
            full: Length of a whole block.
            size: How many bytes of its record came before.
        """
        for match in _KINDS.finditer(block, position + _CHUNK.size):
            start = match.end()
            checksum, length, _ = _CHUNK.unpack_from(block, start - _CHUNK.size)
            if start + length > len(block):
                continue
            self._searched += length + 64
            if self._searched > _SEARCHED:
                break
            if crc32(block[start - 1 : start + length]) == checksum:
                self._count(size + start - _CHUNK.size - position)
                return start - _CHUNK.size
        _, length, kind = _CHUNK.unpack_from(block, position)
        within = 1 <= kind <= 4 and len(block) < position + _CHUNK.size + length <= full
        size += len(block) - position
        if self._searched <= _SEARCHED and (within or not block[position:].strip(b"\0")):
            self._doubtful = (self._doubtful or 0) + size
        else:
            self._count(size)
        return len(block)

    def _count(self, lost: int) -> None:
        self.damaged += not self._within_damage
        self.damaged_bytes += lost + (self._doubtful or 0)
        self._within_damage, self._doubtful = True, None

    def _read(self, most: int) -> bytes:
        found = self._file.read(min(most, self._left))
        self._left -= len(found)
        return found
