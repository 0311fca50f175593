"""Adapt the state of a checkpoint callback to a new folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from lightning_trainingkit._files import put_in_place, temporary
from lightning_trainingkit._lightning import rank_zero_only

__all__ = ["bring_best", "relocated_state"]

_PATHS = ("best_model_path", "best_k_models", "kth_best_model_path", "last_model_path", "positions", "outdated")


def bring_best(state: dict[str, Any], folder: str) -> None:
    """Copy the best files of a state from its old folder into the present folder, if they are missing there.

    A resumed run often has a new folder (``version_1``). Rank 0 copies, all ranks wait.

    Args:
        state: The output of ``BestCheckpoint.state_dict`` in the old folder.
        folder: The present folder.
    """
    before = Path(state["dirpath"])
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        for path in map(Path, {*state["best_k_models"], state["best_model_path"]}):
            if not path.is_relative_to(before) or not path.is_file():
                continue
            there = Path(folder) / path.relative_to(before)
            if not there.exists():
                _copy(path, there)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _copy(path: Path, there: Path) -> None:
    try:
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, temporary(there))
        put_in_place(there)
    except OSError:  # Lightning's callback then warns that the best value starts over
        temporary(there).unlink(missing_ok=True)


def relocated_state(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Move the paths in a state from its old folder to the present folder.

    Args:
        state: The output of ``BestCheckpoint.state_dict`` in the old folder.
        folder: The present folder.

    Returns:
        The state with new paths for the files that the present folder has. The state itself if the best file is
        missing there.
    """

    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {here(path): item for path, item in value.items()}
        if isinstance(value, list):
            return [here(path) for path in value]
        moved = Path(folder) / os.path.relpath(value, state["dirpath"]) if value else None
        return str(moved) if moved is not None and moved.is_file() else value

    moved = {name: here(value) if name in _PATHS else value for name, value in state.items()}
    return state if moved["best_model_path"] == state["best_model_path"] else moved | {"dirpath": folder}
