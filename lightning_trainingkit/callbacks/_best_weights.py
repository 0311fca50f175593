"""Keep the best weights of a training in a file, and put them back."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info

from lightning_trainingkit._files import put_in_place, sweep, temporary
from lightning_trainingkit.nn.weights.checkpoint import explain_failure
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["BestWeights", "restore_weights"]


def restore_weights(trainer: L.Trainer, path: str | Path) -> None:
    """Load the weights of a checkpoint into the trained module, on every rank, running no code from the file."""
    path = trainer.strategy.broadcast(str(path))  # by an unsynchronised metric, a ModelCheckpoint's differs by rank
    with explain_failure(path):
        checkpoint = trainer.strategy.load_checkpoint(path, weights_only=True)
    if "pytorch-lightning_version" in checkpoint:  # as Lightning does with its own files
        trainer.lightning_module.on_load_checkpoint(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    mark_trained(trainer.lightning_module)


@dataclass
class BestWeights:
    """A weights-only file with the best weights so far, for a callback that restores them.

    - **Name**: no two files share one, so callbacks and runs with the same folder leave each other's files alone.
    - **New file**: its name is temporary until a checkpoint names it or the fit ends. After a kill in between the next
      fit in that folder sweeps it.
    - **Former file**: it stays until the next one is written. By then the newest checkpoint names a later file.
    """

    owner: str  # class name of the callback
    monitor: str  # name of the metric
    file: str = ""  # the best weights, empty where there are none
    resumed: bool = False  # whether the fit began from a checkpoint
    _named: str = ""  # the file that the newest checkpoint names: any other has its temporary name
    _former: str = ""  # the file that the checkpoints before named

    def state(self) -> dict[str, Any]:
        """The names of the files, for a checkpoint."""
        return {"best_file": self.file, "former_file": self._former if self.file == self._named else self._named}

    def load(self, state: dict[str, Any]) -> None:
        """Load the names of the files."""
        self.file = self._named = state.get("best_file", "")
        self._former = state.get("former_file", "")

    def start(self, trainer: L.Trainer) -> bool:
        """Prepare the folder before training. Returns False if a resumed run has no file: the best begins there."""
        if "://" in (root := str(trainer.log_dir or trainer.default_root_dir)):
            raise ValueError(
                f"`restore_best` must have a local folder to keep the best weights in, got {root}. "
                "Give the Trainer a local `default_root_dir`, or pass `restore_best=False`."
            )
        for folder in {_folder(trainer), *([Path(self.file).parent] if self.file else [])}:
            sweep(folder)
        self.file = self._named = self._find(trainer)
        if self.resumed and not self.file:
            rank_zero_info(f"{self.owner}: the checkpoint has no best weights, the best by {self.monitor} begins here.")
        return bool(self.file) or not self.resumed

    def replace(self, trainer: L.Trainer, *, keep: bool) -> None:
        """The weights that were just validated are better: write them, or only forget the former best."""
        if self.file not in ("", self._named):
            temporary(self.file).unlink(missing_ok=True)
        self.file = ""
        if keep:
            metric = re.sub(r"[^\w.-]+", "_", self.monitor)
            name = f"{self.owner}-{metric}-epoch={trainer.current_epoch}-step={trainer.global_step}-{uuid4().hex[:8]}"
            file: str = trainer.strategy.broadcast(str(_folder(trainer) / f"{name}.pt"))
            _write_validated_weights(trainer, temporary(file))
            self._remove_former(trainer)
            self.file = file

    def name(self, trainer: L.Trainer) -> None:
        """Give the file its name, since a checkpoint that names it is about to be written."""
        if self.file != self._named:
            if self.file and trainer.is_global_zero:
                put_in_place(self.file)
            self._former, self._named = self._named, self.file

    def finish(self, trainer: L.Trainer) -> None:
        """Leave the best file, and the one that the newest checkpoint names, for a run that goes on from here."""
        self._remove_former(trainer)
        self.name(trainer)

    def restore(self, trainer: L.Trainer) -> bool:
        """Load the best weights into the module. Returns False if there are none."""
        if file := self._find(trainer):
            restore_weights(trainer, file)
        return bool(file)

    def _find(self, trainer: L.Trainer) -> str:
        """Path of the file on all ranks, also if it was moved beside the checkpoint to resume."""
        if not self.file:
            return ""
        file = Path(self.file) if self.file == self._named else temporary(self.file)
        folders = [file.parent, Path(trainer.ckpt_path or file).parent, _folder(trainer)]
        there = trainer.strategy.broadcast([str(f / file.name) for f in folders if (f / file.name).is_file()])
        if not there:
            raise FileNotFoundError(
                f"`restore_best` must find the best weights so far, got {file}, which is gone. Only the newest "
                "checkpoint's file is kept: resume from it, put a moved file beside it, or pass `restore_best=False`."
            )
        return there[0]

    def _remove_former(self, trainer: L.Trainer) -> None:
        if self._former and Path(self._former).parent == _folder(trainer):  # files elsewhere belong to other runs
            Path(self._former).unlink(missing_ok=True)
        self._former = ""


def _folder(trainer: L.Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir).absolute() / "checkpoints"


def _write_validated_weights(trainer: L.Trainer, path: Path) -> None:
    checkpoint = {"state_dict": trainer.strategy.lightning_module_state_dict()}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):  # puts the averaged weights in place
            callback.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)
    if trainer.is_global_zero:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": checkpoint["state_dict"]}, path)
    trainer.strategy.barrier()
