"""Read the members of an ensemble: checkpoint files, modules in memory, W&B artifacts."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from lightning_trainingkit.nn.averaging.member_files import MemberFile, as_list, read_members
from lightning_trainingkit.nn.weights.checkpoint import MANIFEST

__all__ = ["load_members"]

PREFIX = "wandb:"
_SUFFIXES = (".ckpt", ".pt", ".pth")


def load_members(members: Any) -> list[MemberFile | nn.Module]:
    """Read members as ``read_members`` does, and the checkpoints of artifacts ``"wandb:ENTITY/PROJECT/NAME:VERSION"``.

    Downloaded files are deleted afterwards.

    Raises:
        ConnectionError: If W&B does not give an artifact.
    """
    with TemporaryDirectory() as folder:
        local: list[Any] = []
        for each in as_list(members):
            wanted = isinstance(each, str) and each.startswith(PREFIX)
            local += _download(each.removeprefix(PREFIX), Path(folder)) if wanted else [each]
        return read_members(local)


def _download(name: str, folder: Path) -> list[Path]:
    """Download an artifact into a folder with its name, and return its checkpoints."""
    if name.count("/") != 2 or name.count(":") != 1 or not all(name.replace(":", "/").split("/")):
        raise ValueError(
            f"`members` must name an artifact as {PREFIX}ENTITY/PROJECT/NAME:VERSION, got {PREFIX}{name}. "
            "The page of the artifact shows its full name."
        )
    import wandb

    target = folder / name.replace(":", "-")
    try:
        wandb.Api().artifact(name).download(root=str(target))
    except (wandb.Error, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConnectionError(
            f"`members` must be at hand, got {PREFIX}{name}, which W&B did not give ({reason}). Log in by `wandb "
            "login`, check the name, or download it elsewhere and name the file."
        ) from error
    files = sorted(path for path in target.glob("**/*") if path.is_file())
    found = [target] if target / MANIFEST in files else [path for path in files if path.suffix in _SUFFIXES]
    if not found:
        there = ", ".join(sorted(path.name for path in files)[:8]) or "nothing"
        raise FileNotFoundError(
            f"`members` must hold checkpoints ({', '.join(_SUFFIXES)}), got {PREFIX}{name} with: {there}. "
            "Name another artifact."
        )
    return found
