"""Find all runs below some folders and read those that have changed."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import current_thread, main_thread

import numpy as np

from lightning_trainingkit.dashboards.heartbeat import is_alive
from lightning_trainingkit.dashboards.read import cache
from lightning_trainingkit.dashboards.read.csv_files import read_csv_file
from lightning_trainingkit.dashboards.read.record import Curve, Record, UnreadableError
from lightning_trainingkit.dashboards.read.wandb_files import read_wandb_file

__all__ = ["gather"]

_TOGETHER = 8  # files that one process of W&B reads


def gather(folders: Sequence[str | Path]) -> tuple[list[Record], dict[str, str]]:
    """Read the W&B runs and CSVLogger folders below ``folders``, several at once.

    Returns:
        The runs, the newest last, and why each file that was skipped holds none. W&B's files of one id are one run,
        that was resumed.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            what = "is a file" if Path(folder).exists() else "does not exist"
            raise FileNotFoundError(f"`DIR` must be a folder with runs, got {folder}, which {what}.")
    # Links to files keep their place: what is read of a run is kept beside the link, not where it points to.
    links_last = sorted({path for folder in folders for path in _files(Path(folder).resolve())}, key=Path.is_symlink)
    paths = sorted({path.resolve(): path for path in reversed(links_last)}.values())
    runs: dict[Path, Record] = {}
    for path in paths:
        if (known := cache.load(path)) is not None:
            runs[path] = known
    new = [path for path in paths if path not in runs]
    skipped = {}
    if new:
        workers = os.cpu_count() or 1
        count = -(-len(new) // workers // _TOGETHER) * workers  # so many that all workers end at the same time
        for path, found in _shown(_read_all([new[place::count] for place in range(count)], workers), len(new)):
            if isinstance(found, Record):
                runs[path] = found
            elif path.suffix == ".wandb" and is_alive(path.parent) is not None:
                # W&B keeps what was logged back for a quarter of a minute.
                runs[path] = _begun(path, found)
            else:
                skipped[str(path)] = found
    for path, run in runs.items():
        if run.state == "unknown" and (alive := is_alive(path.parent)) is not None:
            run.state = "running" if alive else "killed"
    parts: dict[tuple[str, ...], list[Record]] = {}
    projects = {run.id: run.project for path, run in runs.items() if path.suffix == ".wandb" and run.project}
    for path, run in sorted(runs.items(), key=lambda item: item[1].started):
        project = run.project or projects.get(run.id, "")  # one that has only begun doesn't say
        parts.setdefault((project, run.id) if path.suffix == ".wandb" else (str(path),), []).append(run)
    return sorted(map(joined, parts.values()), key=lambda run: run.started), skipped


def joined(parts: Sequence[Record]) -> Record:
    """One run of what was recorded from its start on and after each resumption."""
    whole, *later = {part.started: part for part in parts}.values()  # what began at one moment are copies
    for part in later:
        both = whole.curves.keys() & part.curves.keys()
        again = max((int((whole.curves[name].steps >= part.curves[name].steps[0]).sum()) for name in both), default=0)
        notes = [whole.note, part.note, f"resumed: the last {again} values were logged once more" if again else ""]
        whole = replace(
            part,
            name=part.name if part.name not in ("", part.id) else whole.name,
            project=part.project or whole.project,
            group=part.group or whole.group,
            job_type=part.job_type or whole.job_type,
            tags=list(dict.fromkeys([*whole.tags, *part.tags])),
            started=whole.started,
            seconds=whole.seconds + part.seconds,
            config=whole.config | part.config,
            goals=whole.goals | part.goals,
            summary=whole.summary | part.summary,
            curves=whole.curves | {name: _after(whole.curves.get(name), curve) for name, curve in part.curves.items()},
            note="; ".join(filter(None, notes)),
        )
    return whole


def _after(one: Curve | None, other: Curve) -> Curve:
    """A curve that goes on: what had come after the checkpoint is done once more, and counts from then on."""
    if one is None:
        return other
    kept = one.steps < other.steps[0]
    return Curve(
        np.concatenate((one.steps[kept], other.steps)),
        np.concatenate((one.values[kept], other.values)),
    )


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):  # which follows no links: W&B's latest-run is one
        own = ("files", "logs", "tmp") if any(name.endswith(".wandb") for name in files) else ()  # a run's, no runs
        folders[:] = [name for name in folders if name not in own and name[0] != "."]
        for name in files:
            if name.endswith(".wandb") or name == "metrics.csv":
                yield Path(parent, name)


def _begun(path: Path, why: str) -> Record:
    """A run of which W&B has written nothing that can be read yet."""
    name = path.stem.removeprefix("run-")
    return Record(name, name, started=path.stat().st_ctime, source=str(path), note=f"nothing to read yet: {why}")


def _read_all(batches: Sequence[Sequence[Path]], workers: int) -> Iterator[list[tuple[Path, Record | str]]]:
    if not main_thread().is_alive():  # at the end of the process Python starts no threads
        yield from map(_read, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_read, batches)


def _read(paths: Sequence[Path]) -> list[tuple[Path, Record | str]]:
    """Read some runs and keep what they hold; why there is none where there is none."""
    before = {path: cache.signature(path) for path in paths}
    by_wandb = [path for path in paths if path.suffix == ".wandb"]
    found: list[tuple[Path, Record | str]] = []
    for path in by_wandb:
        try:
            found.append((path, read_wandb_file(path)))
        except UnreadableError as error:
            found.append((path, str(error)))
    for path in paths:
        if path not in by_wandb:
            try:
                found.append((path, read_csv_file(path)))
            except UnreadableError as error:
                found.append((path, str(error)))
            except OSError as error:
                found.append((path, f"{type(error).__name__}: {error.strerror or error}"))
    for path, record in found:
        if isinstance(record, Record):
            cache.save(path, record, before[path])
    return found


def _shown(parts: Iterator[list[tuple[Path, Record | str]]], count: int) -> Iterator[tuple[Path, Record | str]]:
    """Show a bar while runs are read, where there are many."""
    found = (each for part in parts for each in part)
    if count < 4 or current_thread() is not main_thread() or not main_thread().is_alive():  # the page says it there
        yield from found
        return
    from rich.progress import track

    yield from track(found, f"Reading {count} runs", total=count, transient=True)
