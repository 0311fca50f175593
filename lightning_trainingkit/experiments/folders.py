"""The folder of a run: new, or that of an earlier run to resume."""

import atexit
import os
from pathlib import Path

import torch
from torch import distributed

from lightning_trainingkit._lightning import rank_zero_only
from lightning_trainingkit.nn.weights.read_checkpoint import read_checkpoint

__all__ = ["newest_checkpoint", "open_folder"]

_FOLDER = "TRAININGKIT_FOLDER"  # tells the processes that Lightning starts for further ranks


def open_folder(name: str, output: Path | None = None, *, resume: bool = False) -> Path:
    """Open the folder of this run: a new one, or the folder of the run to resume. All ranks get the same one.

    Args:
        name: Name of the recipe.
        output: The folder that was asked for; by default ``runs/NAME``, or ``runs/NAME-2``, ... where that stands.
        resume: Go on in ``output``; by default in the newest folder of this recipe.

    Raises:
        FileExistsError: If ``output`` is not empty and is not to be resumed.
        FileNotFoundError: If there is nothing to resume.
    """
    atexit.register(_end_group)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _FOLDER not in os.environ and output is None:
        raise ValueError("`--output` must be given where each rank is started by itself (torchrun, SLURM), got none.")
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
    """The checkpoint in ``folder`` that was saved last in training, or None; what a kill cut off has another name."""

    def age(path: Path) -> tuple[int, bool]:
        # Files of weights alone can't be resumed from, and have no step.
        content = read_checkpoint(path, lambda file: torch.load(file, map_location="cpu", weights_only=True, mmap=True))
        step: int = content.get("global_step", -1) if isinstance(content, dict) else -1
        return step, path.name == "last.ckpt"  # of two from one step it is the later one, and knows of the other

    newest = max(folder.glob("*.ckpt"), key=age, default=None)
    return None if newest is None or age(newest)[0] < 0 else newest


def _end_group() -> None:
    """Left to the end of the interpreter, which Lightning does, gloo's threads abort a run at times that is done."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def _earlier(name: str) -> list[Path]:
    numbered = [path for path in Path("runs").glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()]
    return [path for path in [Path("runs") / name, *numbered] if path.is_dir() and any(path.iterdir())]
