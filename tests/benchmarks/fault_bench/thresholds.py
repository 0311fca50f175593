"""Which commit fixed the detector's thresholds."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["RULES", "thresholds_commit"]

RULES = ("lightning_trainingkit/nn/diagnostics", "lightning_trainingkit/callbacks/diagnostics")
"""Folders that hold the detector's rules."""


def thresholds_commit(files: Sequence[str] = tuple(f"{folder}/*.py" for folder in RULES)) -> dict[str, object]:
    """The last commit that changed the rules, and whether files on disk differ from it.

    Args:
        files: Patterns of the files with the rules.
    """
    root = Path(__file__).parents[3]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    return {
        "thresholds_commit": git("log", "-1", "--format=%H", "--", *files),
        "thresholds_changed_since": bool(git("status", "--porcelain", "--", *files)),
    }
