"""Read the files of one run. The reading processes call this."""

from dataclasses import replace
from pathlib import Path

from lightning_trainingkit.dashboards.read.joining import joined
from lightning_trainingkit.dashboards.read.packing import Found
from lightning_trainingkit.dashboards.read.record import LEFT_OUT, Record
from lightning_trainingkit.dashboards.read.run_files import RunFiles, why
from lightning_trainingkit.dashboards.read.thinning import SHARES, thin

__all__ = ["read_run"]


def read_run(files: RunFiles) -> Found:
    """Read a run, join its parts and thin its curves. A failure becomes a reason in the result, not an exception."""
    found = _read_wandb(files) if files.by_wandb else _read_folder(files)
    for record in found.records:
        if left_out := record.config.pop(LEFT_OUT, ""):
            record.note = "; ".join(filter(None, [record.note, str(left_out)]))
        record.curves = {name: thin(curve, SHARES) for name, curve in record.curves.items()}
    return found


def _read_wandb(files: RunFiles) -> Found:
    from lightning_trainingkit.dashboards.read.wandb_files import read_wandb_file

    unread: dict[Path, str] = {}
    read: list[Record] = []
    for path in files.paths:
        try:
            read.append(replace(read_wandb_file(path), source=str(path)))
        except Exception as error:  # the content may be anything
            unread[path] = why(error)
    projects = {record.id: record.project for record in read if record.project}
    parts: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(read, key=lambda record: record.started):
        parts.setdefault((record.project or projects.get(record.id, ""), record.id), []).append(record)
    return Found([joined(each) for each in parts.values()], unread)


def _read_folder(files: RunFiles) -> Found:
    """Read a folder's ``metrics.csv``. If that fails, read the event files beside it, which hold the same training."""
    unread: dict[Path, str] = {}
    tables = [path for path in files.paths if path.suffix == ".csv"]
    for path in tables:
        from lightning_trainingkit.dashboards.read.csv_files import read_csv_file

        try:
            return Found([read_csv_file(path)])
        except Exception as error:
            unread[path] = why(error)
    if events := [path for path in files.paths if path not in tables]:
        from lightning_trainingkit.dashboards.read.event_files import read_event_files

        try:
            return Found([read_event_files(events)], unread)
        except Exception as error:
            unread[events[-1]] = why(error)
    return Found([], unread)
