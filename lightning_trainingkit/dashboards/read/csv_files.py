"""Read the folders that Lightning's CSVLogger writes."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from lightning_trainingkit.dashboards.read.record import Record, UnreadableError
from lightning_trainingkit.dashboards.read.rows import Rows
from lightning_trainingkit.dashboards.read.settings_file import read_settings

__all__ = ["read_csv_file"]

_MAX_BYTES = 64_000_000
_MAX_LINE = 1_000_000


def read_csv_file(path: Path) -> Record:
    """Read ``NAME/version_N/metrics.csv`` and the ``hparams.yaml`` beside it. Neither file says whether the run ended.

    Lines are read one by one, so that a damaged line affects no other line. The note counts the missing lines.

    Raises:
        UnreadableError: If the file is empty, or is no table with a column ``step``.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if not content:
        raise UnreadableError("it is empty.")
    lines = content[:_MAX_BYTES].splitlines(keepends=True)
    unfinished = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
    header, *cells = _cells(lines) if lines else [[]]
    if header is None or "step" not in header:
        raise UnreadableError("it is no table: it has no column `step`, as Lightning's CSVLogger writes it.")
    table = _Table(header)
    for row in cells:
        table.add(row)
    if unfinished and not table.may_be_cut_off(*_cells(unfinished)):
        table.add(None)
    if not table.count:
        raise UnreadableError("it is empty.")
    config, note = read_settings(path.parent)
    more = f"only the rows in the first {_MAX_BYTES:,} bytes are read" if len(content) > _MAX_BYTES else ""
    return Record(
        id=path.parent.name,
        name=f"{path.parent.parent.name}/{path.parent.name}",
        project=path.parent.parent.name,
        state="unknown",
        started=path.stat().st_mtime,
        config=config,
        curves=table.rows.curves(),
        source=str(path),
        note="; ".join(filter(None, [more, *table.notes(), note])),
    )


class _Table:
    """Collect rows, and count damaged rows and values."""

    def __init__(self, header: list[str]) -> None:
        self.rows = Rows()
        self.count = 0
        self._header = header
        self._step = header.index("step")
        self._damaged = 0
        self._words = dict.fromkeys(header, 0)  # values that are no numbers, by column
        self._numbers: set[str] = set()

    def add(self, row: list[str] | None) -> None:
        if row == []:
            return
        self.count += 1
        step = _number(row[self._step]) if row is not None and len(row) == len(self._header) else None
        if row is None or step is None or not math.isfinite(step):
            self._damaged += 1
            return
        found: dict[str, float] = {}
        for name, text in zip(self._header, row, strict=True):
            if not text or name in found:
                continue
            value = _number(text)
            if value is None:
                self._words[name] += 1
            else:
                found[name] = value
        self._numbers.update(found)
        self.rows.add(step, found)

    def may_be_cut_off(self, row: list[str] | None) -> bool:
        """Whether the last row is valid but not yet complete. Its last number may be cut off."""
        if not row or len(row) > len(self._header):
            return False
        return all(not text or _number(text) is not None for text in row[:-1]) and row[-1] == _plain(row[-1])

    def notes(self) -> Iterator[str]:
        if self._damaged:
            yield f"{self._damaged} of {self.count} rows are damaged and missing"
        words = sum(self._words[name] for name in self._numbers)  # a column of words alone is no metric
        if words:
            yield f"{words} values are no numbers and missing"
        twice = sorted({name for name in self._header if self._header.count(name) > 1})
        if twice:
            yield f"columns that stand twice are read once: {', '.join(twice)[:200]}"
        if any(_plain(name) != name for name in self._header):
            yield "a column's name is damaged"


def _cells(lines: list[bytes]) -> Iterator[list[str] | None]:
    """The cells of each line, or None for a line that cannot be read."""
    for line in lines:
        text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
        if len(text) > _MAX_LINE:
            yield None
        elif '"' not in text:
            yield text.split(",") if text else []
        else:
            try:
                yield next(csv.reader([text], strict=True), [])
            except csv.Error:
                yield None


def _plain(text: str) -> str:
    """The text without characters that no logger writes."""
    return "".join(each for each in text if each.isprintable() and each != "\N{REPLACEMENT CHARACTER}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
