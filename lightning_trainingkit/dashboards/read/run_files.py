"""Find the files of all runs below some folders."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_trainingkit.dashboards.read.regular_file import kind_of

__all__ = ["RunFiles", "find_runs", "why"]

_EVENTS = "events.out.tfevents."
_MAX_DEPTH = 100


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Args:
        paths: ``run-ID.wandb`` of each part of a resumed run, or ``metrics.csv`` and TensorBoard's event files of one
            folder.
    """

    paths: tuple[Path, ...]

    @property
    def by_wandb(self) -> bool:
        """Whether W&B has written the files."""
        return self.paths[0].suffix == ".wandb"

    @property
    def folder(self) -> Path:
        """The folder of the newest file."""
        return self.paths[-1].parent

    @property
    def name(self) -> str:
        """Name of the run in its folder; empty if the folder holds only one run."""
        return self.paths[0].stem if self.by_wandb else ""

    def size(self) -> int:
        """Bytes of all files; a missing file counts as 0."""
        return sum(path.stat().st_size for path in self.paths if path.exists())


def find_runs(folders: Sequence[Path]) -> tuple[list[RunFiles], dict[str, str]]:
    """Find the runs, each once, and the reasons why files or folders that may hold a run cannot be read."""
    skipped: dict[str, str] = {}
    # Links to files stay unresolved: the cache file is written beside the link, not beside its target.
    found = {path for folder in folders for path in _files(folder.resolve(), skipped)}
    links_last = sorted(found, key=lambda path: (path.is_symlink(), path))
    paths = {path.resolve(): path for path in reversed(links_last)}.values()
    parts: dict[str | Path, list[Path]] = defaultdict(list)
    for path in sorted(paths, key=lambda path: (path.parent.name, path)):  # W&B's folders begin with the time
        parts[path.name if path.suffix == ".wandb" else path.parent].append(path)
    # Event files sort before metrics.csv, which is read first.
    return [RunFiles(tuple(sorted(each, key=_is_events))) for each in parts.values()], skipped


def why(error: BaseException) -> str:
    """Explain to a user why a file cannot be read."""
    if isinstance(error, MemoryError):
        return "it needs more memory than a file of its size should."
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error.strerror or error}"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _is_events(path: Path) -> bool:
    return path.name.startswith(_EVENTS)


def _may_be_a_run(name: str) -> bool:
    return name.endswith(".wandb") or name == "metrics.csv" or name.startswith(_EVENTS)


def _files(folder: Path, skipped: dict[str, str]) -> Iterator[Path]:
    def note(error: OSError) -> None:
        skipped[str(error.filename)] = why(error)

    for parent, folders, files in os.walk(folder, onerror=note):  # no links are followed: latest-run is one
        own = (
            ("files", "logs", "tmp") if any(name.endswith(".wandb") for name in files) else ()
        )  # folders of a run, without runs
        found = [*files, *folders]
        folders[:] = [name for name in folders if name not in own and name[0] != "."]
        if folders and len(Path(parent).parts) - len(folder.parts) >= _MAX_DEPTH:
            skipped[parent] = f"it must be at most {_MAX_DEPTH} folders deep, got more."
            folders.clear()
        for path in (Path(parent, name) for name in found if _may_be_a_run(name)):
            try:
                kind = kind_of(path)
            except OSError as error:
                skipped[str(path)] = why(error)
                continue
            if kind:
                skipped[str(path)] = f"it must be a file, got {kind}."
            else:
                yield path
