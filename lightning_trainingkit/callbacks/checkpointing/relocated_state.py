"""The state of a checkpoint callback after its folder was moved."""

import os
from pathlib import Path
from typing import Any

__all__ = ["relocated_state"]

_PATHS = ("best_model_path", "best_k_models", "kth_best_model_path", "last_model_path", "positions", "outdated")


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
