"""Find all runs below some folders, and read the runs that have changed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import current_thread, main_thread

from lightning_trainingkit.dashboards.heartbeat import state
from lightning_trainingkit.dashboards.other_loggers import noted_log_dirs
from lightning_trainingkit.dashboards.read import cache
from lightning_trainingkit.dashboards.read.event_files import NO_SCALARS
from lightning_trainingkit.dashboards.read.joining import joined
from lightning_trainingkit.dashboards.read.packing import Found
from lightning_trainingkit.dashboards.read.pool import read_all
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.dashboards.read.run_files import RunFiles, find_runs

__all__ = ["gather"]

_unreadable: dict[RunFiles, tuple[list[int], Found]] = {}  # so that a served page does not wait for them each time


def gather(folders: Sequence[str | Path]) -> tuple[list[Record], dict[str, str]]:
    """Read the W&B runs, CSVLogger folders and TensorBoard folders below ``folders``, several at once.

    Curves are thinned. Several W&B files with one id are the parts of one resumed run. If other loggers of the Trainer
    recorded the training of a W&B run, their folders are skipped.

    Returns:
        The runs, the newest last, and the reason for each skipped file.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            what = "is a file" if Path(folder).exists() else "does not exist"
            raise FileNotFoundError(f"`DIR` must be a folder with runs, got {folder}, which {what}.")
    files, skipped = find_runs([Path(folder) for folder in folders])
    by_wandb = [each for each in files if each.by_wandb]
    noted = {each: {path for part in each.paths for path in noted_log_dirs(part.parent)} for each in by_wandb}
    places = set().union(*noted.values())
    copies = {each for each in files if not each.by_wandb and _is_noted(each, places)}
    found = dict(_read([each for each in files if each not in copies]))
    # If a W&B run cannot be read, the files of the other loggers are read.
    shown = set().union(*(noted[each] for each in by_wandb if found[each].records))
    copied = dict(_read([each for each in files if each in copies and not _is_noted(each, shown)]))
    lent: dict[RunFiles, Record] = {}
    for each in by_wandb:
        if not found[each].records and (begun := _begun(each, found[each])):
            others = [copied.pop(copy) for copy in list(copied) if _is_noted(copy, noted[each])]
            if records := [record for other in others for record in other.records]:
                lent[each] = _lent(begun[-1], records[0])
    found |= copied
    event_folders = {each.folder for each in files if not each.by_wandb}
    runs: list[Record] = []
    for each, held in found.items():
        begun = _begun(each, held)
        runs += [lent[each]] if each in lent else _with_states(held.records, begun)
        waited_for = {record.source for record in begun}
        for path, why in held.unread.items():
            of_settings_alone = why == NO_SCALARS and each.folder.parent in event_folders  # written by add_hparams
            if str(path) not in waited_for and not of_settings_alone:
                skipped[str(path)] = why
    return sorted(runs, key=lambda run: run.started), skipped


def _with_states(records: list[Record], begun: Sequence[Record]) -> list[Record]:
    """Add the states that heartbeats tell, and join the parts that have only begun."""
    records = [_with_state(record) for record in records]
    if not begun:
        return records
    newest = max(records, key=lambda record: record.started, default=begun[0])
    return [*(record for record in records if record is not newest), joined([newest, *begun])]


def _lent(begun: Record, copy: Record) -> Record:
    """Fill a run that W&B has not written yet with the records of another logger."""
    names = ("seconds", "config", "goals", "summary", "curves")
    note = f"read from {Path(copy.source).name}: of {Path(begun.source).name}, {begun.note}"
    return replace(
        begun, **{name: getattr(copy, name) for name in names}, note="; ".join(filter(None, [copy.note, note]))
    )


def _with_state(record: Record) -> Record:
    """A copy of the run with the state that its heartbeat tells now. The record itself may be kept for later."""
    if record.state == "unknown" and (said := state(Path(record.source).parent)) is not None:
        return replace(record, state=said)
    return record


def _is_noted(files: RunFiles, noted: set[Path]) -> bool:
    """Whether another run notes this folder as a record of its training.

    TensorBoard's writers put ``add_scalars`` and hyperparameters into folders below their own.
    """
    own = files.folder.resolve()
    places = {own} if any(path.suffix == ".csv" for path in files.paths) else {own, own.parent}
    return not places.isdisjoint(noted)


def _begun(files: RunFiles, found: Found) -> list[Record]:
    """Parts of a W&B run with a heartbeat but without readable data. W&B holds rows back for 15 seconds."""
    if not files.by_wandb:
        return []
    begun = []
    for path, why in found.unread.items():
        if (said := state(path.parent)) is not None:
            name, note = path.stem.removeprefix("run-"), f"nothing to read yet: {why}"
            started = path.stat().st_ctime if path.exists() else 0.0
            begun.append(Record(name, name, state=said, started=started, source=str(path), note=note))
    return begun


def _read(runs: Sequence[RunFiles]) -> Iterator[tuple[RunFiles, Found]]:
    """Load runs from their caches, and read the runs that have changed."""
    new: dict[RunFiles, str] = {}
    for files in runs:
        of, known = cache.signature(files), cache.load(files)
        if known is None and (failed := _unreadable.get(files)) is not None and failed[0] == _changed(files):
            known = failed[1]
        if known is None:
            new[files] = of
        else:
            yield files, known
    for files, found in _shown(read_all(list(new)), len(new)):
        if found.unread:
            _unreadable[files] = _changed(files), found
        else:
            cache.save(files, found, new[files])
        yield files, found


def _changed(files: RunFiles) -> list[int]:
    """Times at which the files, or the permissions to read them, last changed."""
    return [path.stat().st_ctime_ns if path.exists() else 0 for path in files.paths]


def _shown(found: Iterator[tuple[RunFiles, Found]], count: int) -> Iterator[tuple[RunFiles, Found]]:
    """Show a progress bar if many runs are read, but not in the background of a served page."""
    here = current_thread() is main_thread() and main_thread().is_alive()  # at its end a process starts no thread
    if count < 4 or not here:
        yield from found
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)  # one of its own: a progress bar of Lightning's may be live on the common one
    off = not console.is_terminal
    yield from track(found, f"Reading {count} runs", total=count, transient=True, console=console, disable=off)
