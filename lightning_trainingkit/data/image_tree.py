"""Find the parts, the classes and the images of a folder, and count the skipped files."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lightning_trainingkit.data.image_files import extensions

__all__ = ["Skipped", "class_names", "find_parts", "images_below", "list_folder"]

_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing"),
}
_HIDDEN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"}


class Skipped:
    """Counts files and folders that hold no image of a class, and describes them in one line."""

    def __init__(self) -> None:
        self.hidden = self.read_already = 0
        self.outside: list[str] = []
        self.endings: Counter[str] = Counter()

    def __str__(self) -> str:
        endings = ", ".join(ending or "no extension" for ending, _ in self.endings.most_common(5))
        counted = {
            "hidden files or folders": (self.hidden, ""),
            "files that are no images": (self.endings.total(), f" ({endings})"),
            "outside of the classes": (len(self.outside), f" ({', '.join(self.outside[:5])})"),
            "links to folders that were read already": (self.read_already, ""),
        }
        return "; ".join(f"{what}: {count:,}{names}" for what, (count, names) in counted.items() if count)


def list_folder(folder: str | Path, skipped: Skipped) -> tuple[list[str], list[str]]:
    """Names of the visible folders and of the images in a folder, sorted. A broken link counts by its extension."""
    folders, images = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            ending = Path(entry.name).suffix.lower()
            if entry.name.startswith(".") or entry.name in _HIDDEN:
                skipped.hidden += 1
            elif entry.is_dir():
                folders.append(entry.name)
            elif ending in extensions() and (entry.is_file() or not Path(entry).exists()):
                images.append(entry.name)
            else:
                skipped.endings[ending] += 1
    return sorted(folders), sorted(images)


def class_names(folder: Path) -> list[str]:
    """Names of the class folders, sorted; none if ``folder`` is missing. A link to a folder above is no class."""
    if not folder.is_dir():
        return []
    above = _above(folder / "class")
    return [name for name in list_folder(folder, Skipped())[0] if (folder / name).resolve() not in above]


def find_parts(root: Path) -> dict[str, Path]:
    """Find the folders of ``train``, ``val`` and ``test`` by their usual names. Without them the root is ``train``.

    Raises:
        ValueError: If a part has two folders, or ``train`` has no classes and other parts stand beside it.
    """
    if not root.exists():
        raise FileNotFoundError(f"`data_dir` must be an existing folder, got {root}. Put the images into ROOT/CLASS/.")
    names = list_folder(root, Skipped())[0] if root.is_dir() else []
    found = {part: [name for name in names if name.casefold() in usual] for part, usual in _PARTS.items()}
    train = [name for name in found["train"] if class_names(root / name)]
    if not train:
        others = [name for part in ("val", "test") for name in found[part]]
        if found["train"] and others:
            raise ValueError(
                f"`{root / found['train'][0]}` must hold one folder per class, got none. "
                "Put the images into ROOT/CLASS/ or ROOT/{train,val,test}/CLASS/."
            )
        return {"train": root}
    for part, given in found.items():
        if len(given) > 1:
            raise ValueError(f"`{root}` must hold one {part} folder, got {' and '.join(given)}. Remove or rename one.")
    return {part: root / given[0] for part, given in found.items() if given}


def images_below(folder: Path, skipped: Skipped) -> list[str]:
    """Paths of the images in a class folder and its subfolders, sorted. Each folder is read once.

    Links to folders above are not followed, so that no image of another class gets in.
    """
    seen, waiting, found = _above(folder), [folder], []
    while waiting:
        current = waiting.pop()
        real = current.resolve()
        if real in seen:
            skipped.read_already += 1
            continue
        seen.add(real)
        folders, images = list_folder(current, skipped)
        waiting += [current / name for name in reversed(folders)]
        found += [(str(current), name) for name in images]
    return [str(Path(*place)) for place in sorted(found)]


def _above(folder: Path) -> set[Path]:
    paths: Iterable[Path] = (*folder.absolute().parents, *folder.resolve().parents)
    return {path.resolve() for path in paths}
