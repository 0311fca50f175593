"""The state of a checkpoint callback in another folder than that in which it was saved."""

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
    """Copy the best files of a state from its folder into the folder of now, unless they are there.

    A resumed run often has a folder of its own (``version_1``). Rank 0 copies, all ranks wait.
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
    except OSError:  # the best begins anew then, as Lightning's callback says
        temporary(there).unlink(missing_ok=True)


def relocated_state(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Give the paths in a state that was saved in another folder their places in this one.

    Args:
        state: What ``BestCheckpoint.state_dict`` returned there.
        folder: The folder of now.

    Returns:
        The state with the paths of those files that are here now; as it was, if the best one is not.
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
