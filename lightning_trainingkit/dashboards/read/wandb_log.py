"""W&B's log of a run: LevelDB's framing after a header of seven bytes.

- **A file** is a sequence of blocks of 32 KiB. The first begins with ``:W&B``, the magic number 0xBEE1 and a version.
- **A block** holds chunks. Fewer than seven bytes at its end are padding.
- **A chunk** holds the CRC-32 of kind and data, the length of the data, the kind, and the data.
- **A record** is one FULL chunk, or a FIRST chunk, MIDDLE chunks and a LAST chunk.
- **The CRC** is zlib's, unchanged. LevelDB changes its CRC.
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
_SEARCHED = 256 << 20  # bytes, for all damaged places of a file together: about 0.2 s


class WandbLog:
    """Iterate over the records of a log, and count the damaged records.

    - **Damage**: a chunk with a wrong checksum is left out with its whole record. Reading continues at the next chunk
      of the block with a right checksum, or at the next block.
    - **Growth**: bytes that are appended after the log was opened are not read.

    Args:
        file: The open file, at its beginning.

    Attributes:
        version: Version of the framing. Only version 0 is known.
        damaged: Number of damaged places.
        damaged_bytes: Approximate size of the damaged places.
        cut_off: Whether the file ends within a record. The file of a live or killed run may do so.

    Raises:
        UnreadableError: If the file is empty or is not W&B's.
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
        self._full = _BLOCK - _HEADER.size  # bytes of the next block, if it is whole
        self._searched = 0
        self._within_damage = False
        self._doubtful: int | None = None  # bytes: damaged if a record follows, cut off if not

    def __iter__(self) -> Iterator[bytes]:
        record: list[bytes] = []  # chunks of a record before its LAST chunk
        size = 0  # bytes of these chunks with their headers, 0 outside of records
        skipping = False  # whether the next MIDDLE and LAST chunks belong to a damaged record
        while block := self._read(self._full):
            position, full = 0, self._full
            while position + _CHUNK.size <= len(block):
                checksum, length, kind = _CHUNK.unpack_from(block, position)
                start, stop = position + _CHUNK.size, position + _CHUNK.size + length
                if stop > len(block) or not 1 <= kind <= 4 or crc32(block[start - 1 : stop]) != checksum:
                    position = self._after_damage(block, position, full, size)
                    record, size, skipping = [], 0, True
                    continue
                if self._doubtful is not None:  # the file continues, so the bytes were damaged
                    self._count(0)
                position, self._within_damage = stop, False
                if kind in (_FULL, _FIRST):
                    if size:  # the rest of the previous record is missing
                        self._count(size)
                    record, size, skipping = [], 0, False
                    if kind == _FULL:
                        yield block[start:stop]
                        continue
                elif not size:
                    if not skipping:  # its FIRST chunk is missing
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
            self._full = _BLOCK
        self.cut_off |= bool(size) or self._doubtful is not None

    def skip_to_tail(self) -> None:
        """Go to the last two blocks. Reading may then begin within a record, so that ``damaged`` is unreliable."""
        start = max(0, (_HEADER.size + self._left) // _BLOCK - 1) * _BLOCK
        if start:
            self._left -= start - self._file.tell()
            self._file.seek(start)
            self._full = _BLOCK

    def _after_damage(self, block: bytes, position: int, full: int, size: int) -> int:
        """Find the next chunk with a right checksum.

        Args:
            block: The bytes of the block; the last block of a file may be short.
            position: Position of the damaged chunk.
            full: Length of a whole block.
            size: Bytes of the damaged record before this chunk.

        Returns:
            Position of the next chunk, or the block's end.
        """
        lost = size + len(block) - position
        if block[position:] == bytes(len(block) - position):  # a crash may leave zeros at the end
            self._doubtful = (self._doubtful or 0) + lost
            return len(block)
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
        if within and self._searched <= _SEARCHED:
            self._doubtful = (self._doubtful or 0) + lost
        else:
            self._count(lost)
        return len(block)

    def _count(self, lost: int) -> None:
        self.damaged += not self._within_damage
        self.damaged_bytes += lost + (self._doubtful or 0)
        self._within_damage, self._doubtful = True, None

    def _read(self, most: int) -> bytes:
        found = self._file.read(min(most, self._left))
        self._left -= len(found)
        return found
