"""Find the checkpoints that a folder, a pattern, a file or a list of these names."""

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_trainingkit.nn.weights.checkpoint import MANIFEST, read_manifest

__all__ = ["find_files"]


def find_files(argument: str, given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find the files that ``given`` names, in order.

    - **A folder** needs a manifest of ``BestCheckpoint``. Its files are all ``top_k``, the best first.
    - **A pattern** gives files in the order of their names, numbers in names by size. Matching folders need a manifest.

    Args:
        argument: The user's name for the argument, for errors.
        given: A folder, a pattern, a file, or a list of these.

    Raises:
        FileNotFoundError: If no file is found.
        ValueError: If a manifest is not readable.
    """
    paths = [given] if isinstance(given, str | Path) else given
    return [file for path in paths for file in _files(argument, Path(path))]


def _files(argument: str, path: Path) -> list[Path]:
    if path.is_dir():
        return _of_manifest(argument, path)
    if path.is_file():
        return [path]
    root = Path(path.anchor)
    pattern = str(path.relative_to(root))
    try:
        matched = sorted((each for each in root.glob(pattern) if not each.name.endswith(".tmp")), key=_by_number)
    except ValueError as error:  # before Python 3.13, of "a**b"
        raise ValueError(f"`{argument}` must be a path or a pattern, got {path}: {error}. Write * there.") from None
    if not matched:
        raise FileNotFoundError(f"`{argument}` must match a checkpoint, got {path}. {_what_is_there(path.parent)}")
    return [file for each in matched for file in (_of_manifest(argument, each) if each.is_dir() else [each])]


def _of_manifest(argument: str, folder: Path) -> list[Path]:
    if not (folder / MANIFEST).is_file():
        pattern = next((each for each in ("*.ckpt", "**/*.ckpt") if next(folder.glob(each), None)), None)
        hint = f"For all checkpoints in it give {folder}/{pattern}." if pattern else _what_is_there(folder)
        raise FileNotFoundError(
            f"`{argument}` must be a folder with a {MANIFEST}, as `BestCheckpoint` writes, got {folder}, which has "
            f"none. {hint}"
        )
    files = [folder / str(entry["path"]) for entry in read_manifest(folder)["top_k"]]
    gone = [file for file in files if not file.is_file()]
    if gone:
        raise FileNotFoundError(
            f"`{gone[0]}`, which {MANIFEST} names, must exist. {_what_is_there(gone[0].parent)} Name the files "
            "that you want."
        )
    return files


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts ``snapshot-10`` after ``snapshot-9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _what_is_there(folder: Path) -> str:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(each.name for each in folder.iterdir())
    return f"In {folder.absolute()} there is: {', '.join(names[:8]) + (' ...' if len(names) > 8 else '') or 'nothing'}."
