"""What a trial of folds or members needs beside the user's callbacks: its seed, and the weights at its end."""

import os
from pathlib import Path
from typing import Any

from lightning_trainingkit._files import put_in_place, temporary, write_bytes
from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.epoch_seed import EpochSeed

__all__ = ["KeepFinal", "SeedOfTrial", "final_weights", "open_home"]

FINAL = "final.ckpt"
_NAME = "study.txt"  # holds the name of the study


class SeedOfTrial(EpochSeed):
    """``EpochSeed`` with the seed that ``seed_everything`` got last, in the process of the trial."""

    def __init__(self) -> None:
        super().__init__(0)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the seed."""
        self.seed = int(os.environ["PL_GLOBAL_SEED"])
        super().setup(trainer, pl_module, stage)


class KeepFinal(L.Callback):
    """Save the weights at the end of a fit as ``final.ckpt`` in the folder of the attempt."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, whole or not at all."""
        path = Path(trainer.default_root_dir) / FINAL
        trainer.save_checkpoint(temporary(path), weights_only=True)
        if trainer.is_global_zero:
            put_in_place(path)
        trainer.strategy.barrier()


def final_weights(outcome: dict[str, Any]) -> str:
    """The path of the weights that ``KeepFinal`` saved."""
    return str(Path(outcome["folder"]) / FINAL)


def open_home(folder: str | Path | None, name: str, argument: str = "folder") -> Path:
    """Open the folder of a study. Two studies in one folder would overwrite each other's checkpoints.

    Args:
        folder: The folder, None for ``runs/NAME``.
        name: Name of the study.
        argument: What the user calls the folder.

    Raises:
        ValueError: If the folder belongs to another study.
    """
    home = Path("runs") / name if folder is None else Path(folder)
    mark = home / _NAME
    found = mark.read_text(encoding="utf-8") if mark.is_file() else name
    if found != name:
        raise ValueError(
            f"`{argument}` must be free, or of the study {name!r}, got {home} of {found!r}. Take a new folder."
        )
    home.mkdir(parents=True, exist_ok=True)
    write_bytes(mark, name.encode())
    return home
