"""Read the folders that TensorBoard's writers fill."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning_trainingkit.dashboards.read.record import END_OF_TIME, Record, UnreadableError
from lightning_trainingkit.dashboards.read.rows import Rows
from lightning_trainingkit.dashboards.read.run_files import why
from lightning_trainingkit.dashboards.read.settings_file import read_settings

__all__ = ["NO_SCALARS", "read_event_files"]

NO_SCALARS = "it holds no scalars."
"""The reason if undamaged event files hold no run, such as files of hyperparameters alone."""

_NOT_INSTALLED = "TensorBoard must be installed to read its files, got none. Run: pip install tensorboard."
_MAX_BYTES = 256_000_000
_WRITTEN_TWICE = ("hp_metric", "epoch")  # by Lightning, where a test follows the fit; no metrics


def read_event_files(paths: Sequence[Path]) -> Record:
    """Read all ``events.out.tfevents.*`` of one folder as one run, with TensorBoard's reader.

    Only scalars are read. TensorBoard reads a damaged file up to the damage. The record's note names such files.

    Raises:
        UnreadableError: If the files hold no scalars, or if TensorBoard is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise UnreadableError(_NOT_INSTALLED) from error
    by_tag: dict[str, list[tuple[int, float, float]]] = {}
    notes = []
    for path in paths:
        if path.stat().st_size > _MAX_BYTES:
            notes.append(f"{path.name} is missing: it has more than {_MAX_BYTES:,} bytes")
            continue
        with _cut_off() as said:
            # 0 keeps all events of a kind, 1 keeps one.
            guidance = {"scalars": 0, "images": 1, "audio": 1, "histograms": 1, "compressedHistograms": 1, "tensors": 1}
            events = EventAccumulator(str(path), size_guidance=guidance)
            try:
                events.Reload()
            except Exception as error:  # a record with valid checksums that is no event
                said.append(why(error))
        if any("truncated" not in each.lower().rpartition("(")[2] for each in said):  # as of a live run
            notes.append(f"{path.name} is damaged: its rest is missing")
        again = 0
        for tag in events.Tags()["scalars"]:
            found = by_tag.setdefault(tag, [])
            new = [(event.step, event.value, event.wall_time) for event in events.Scalars(tag)]
            kept = [each for each in found if not new or each[0] < new[0][0]]
            if tag not in _WRITTEN_TWICE:
                again = max(again, len(found) - len(kept))
            by_tag[tag] = kept + new
        if again:
            notes.append(f"resumed: the last {again} values were logged once more")
    if all(
        value == -1 for _, value, _ in by_tag.get("hp_metric", ())
    ):  # Lightning's placeholder, if the user has set no value
        by_tag.pop("hp_metric", None)
    if not by_tag:
        raise UnreadableError(f"{notes[0]}." if notes else NO_SCALARS)
    return _record(paths, by_tag, notes)


def _record(paths: Sequence[Path], by_tag: dict[str, list[tuple[int, float, float]]], notes: list[str]) -> Record:
    rows, folder = Rows(), paths[-1].parent
    for tag, found in by_tag.items():
        for step, value, _ in found:
            rows.add(step, {tag: value})
    times = [time for found in by_tag.values() for _, _, time in found if 0 < time < END_OF_TIME] or [0.0]
    config, note = read_settings(folder)
    return Record(
        id=folder.name,
        name=f"{folder.parent.name}/{folder.name}",
        project=folder.parent.name,
        started=min(times),
        seconds=max(times) - min(times),
        config=config,
        curves=rows.curves(),
        source=str(paths[-1]),
        note="; ".join(filter(None, [*notes, note])),
    )


@contextmanager
def _cut_off() -> Iterator[list[str]]:
    """Collect TensorBoard's messages about files that it reads in part, and print no message of TensorBoard."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if message.startswith("Truncated record"):
                said.append(message)

    logger, listener = logging.getLogger("tensorboard"), Listener()
    before = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.level, logger.propagate = before
