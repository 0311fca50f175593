"""The folder of a run: a new folder, or the folder of an earlier run to resume."""

import atexit
import os
from pathlib import Path

import torch
from torch import distributed

from lightning_trainingkit._lightning import rank_zero_only
from lightning_trainingkit.nn.weights.read_checkpoint import read_checkpoint

__all__ = ["newest_checkpoint", "open_folder"]

_FOLDER = "TRAININGKIT_FOLDER"  # for the processes that Lightning starts for further ranks


def open_folder(name: str, output: Path | None = None, *, resume: bool = False) -> Path:
    """Open a new folder for this run, or the folder of the run to resume. All ranks get the same folder.

    Args:
        name: Name of the recipe.
        output: The folder. By default ``runs/NAME``, or ``runs/NAME-2``, ... if that exists.
        resume: Continue in ``output``, by default in the newest folder of this recipe.

    Raises:
        FileExistsError: If ``output`` is not empty and is not to be resumed.
        FileNotFoundError: If there is no run to resume.
    """
    atexit.register(_end_group)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _FOLDER not in os.environ and output is None:
        raise ValueError("`--output` must be given where each rank is started separately (torchrun, SLURM), got none.")
    if getattr(rank_zero_only, "rank", 0) > 0:
        return Path(os.environ.get(_FOLDER) or output or Path("runs") / name)
    if resume:
        folder = output or max(_earlier(name), key=lambda path: path.stat().st_mtime, default=None)
        if folder is None or not folder.is_dir():
            raise FileNotFoundError(
                f"`--resume` must find a run, got {folder or f'no runs/{name}'}. Start one without it."
            )
    elif output is not None:
        folder = output
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"`--output` must be new or empty, got {folder}. Add --resume to go on in it.")
    else:
        taken = {path.name for path in _earlier(name)}
        number = 2
        folder = Path("runs") / name
        while folder.name in taken:
            folder, number = Path("runs") / f"{name}-{number}", number + 1
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[_FOLDER] = str(folder)
    return folder


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of the training in ``folder``, or None. Files of weights alone don't count."""

    def age(path: Path) -> tuple[int, bool]:
        # Files of weights alone can't be resumed from, and have no step.
        content = read_checkpoint(path, lambda file: torch.load(file, map_location="cpu", weights_only=True, mmap=True))
        step: int = content.get("global_step", -1) if isinstance(content, dict) else -1
        return step, path.name == "last.ckpt"  # of two checkpoints of one step, `last.ckpt` is the later

    newest = max(folder.glob("*.ckpt"), key=age, default=None)
    return None if newest is None or age(newest)[0] < 0 else newest


def _end_group() -> None:
    """End the process group, which Lightning leaves open: gloo's threads sometimes abort the interpreter at its end."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def _earlier(name: str) -> list[Path]:
    numbered = [path for path in Path("runs").glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()]
    return [path for path in [Path("runs") / name, *numbered] if path.is_dir() and any(path.iterdir())]
