"""Keep the best weights of a training in a file, and restore them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from lightning_trainingkit._files import put_in_place, sweep, temporary
from lightning_trainingkit._lightning import L, WeightAveraging, rank_zero_info
from lightning_trainingkit._locks import Lock, hold
from lightning_trainingkit.functional.metric_name import Mode, named_mode, resolve_mode
from lightning_trainingkit.nn.weights.read_checkpoint import check_run, read_checkpoint
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["BestWeights", "restore_weights", "take_mode"]


def take_mode(owner: str, monitor: str, mode: str | None) -> Mode:
    """Decide whether smaller or larger values are better, and print the mode if the metric's name says the opposite."""
    taken = resolve_mode(monitor, mode)
    if (named := named_mode(monitor)) not in (None, taken):
        rank_zero_info(
            f"{owner}: follows {monitor} by mode={taken!r} as told, although the name sounds like {named!r}."
        )
    return taken


def restore_weights(trainer: L.Trainer, path: str | Path, run: str = "") -> None:
    """Load the weights of a checkpoint into the trained module, on every rank, running no code from the file.

    Args:
        trainer: The Trainer.
        path: The file, by its name on rank 0.
        run: Token of the run that must have written the file. Empty for any run.
    """
    path = trainer.strategy.broadcast(str(path))  # with an unsynchronised metric a ModelCheckpoint's differs by rank
    checkpoint = read_checkpoint(path, lambda file: trainer.strategy.load_checkpoint(file, weights_only=True))
    check_run(path, checkpoint, run)
    if "pytorch-lightning_version" in checkpoint:  # Lightning calls the hook for its own files
        trainer.lightning_module.on_load_checkpoint(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    mark_trained(trainer.lightning_module)


@dataclass
class BestWeights:
    """A weights-only file with the best weights so far, for a callback that restores them.

    - **Name**: each file has a unique name. Callbacks and runs with the same folder leave each other's files alone.
    - **New file**: its name is temporary until a checkpoint names the file or the fit ends. After a kill before that,
      the next fit in the folder deletes the file. The process locks the file, so that no other process deletes it.
    - **Former file**: it stays until the next file is written. By then the newest checkpoint names a later file.
    """

    owner: str  # class name of the callback
    monitor: str  # name of the metric
    mode: str  # "min" or "max"
    file: str = ""  # file with the best weights, empty if there is none
    resumed: bool = False  # whether the fit began from a checkpoint
    _named: str = ""  # the file that the newest checkpoint names; any other file has its temporary name
    _former: str = ""  # the file that the previous checkpoints named
    _lock: Lock | None = None  # on a file with a temporary name

    def state(self) -> dict[str, Any]:
        """The names of the files, for a checkpoint."""
        return {"best_file": self.file, "former_file": self._former if self.file == self._named else self._named}

    def load(self, state: dict[str, Any]) -> None:
        """Load the names of the files."""
        self.file = self._named = state.get("best_file", "")
        self._former = state.get("former_file", "")

    def start(self, trainer: L.Trainer) -> bool:
        """Prepare the folder before training. Returns False if a resumed run has no file of best weights."""
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
        """Write the weights of this validation as the best (``keep``), or only forget the former best."""
        if self.file not in ("", self._named):
            temporary(self.file).unlink(missing_ok=True)
            self._lock = None
        self.file = ""
        if keep:
            metric = re.sub(r"[^\w.-]+", "_", self.monitor)
            name = f"{self.owner}-{metric}-epoch={trainer.current_epoch}-step={trainer.global_step}-{uuid4().hex[:8]}"
            file: str = trainer.strategy.broadcast(str(_folder(trainer) / f"{name}.pt"))
            self._lock = _write_validated_weights(trainer, temporary(file))
            self._remove_former(trainer)
            self.file = file

    def name(self, trainer: L.Trainer) -> None:
        """Give the file its final name, right before a checkpoint that names the file is written."""
        if self.file != self._named:
            if self.file and trainer.is_global_zero:
                put_in_place(self.file)
            self._lock = None
            self._former, self._named = self._named, self.file

    def finish(self, trainer: L.Trainer) -> None:
        """Keep the best file, and the file that the newest checkpoint names, for a run that resumes."""
        self._remove_former(trainer)
        self.name(trainer)

    def restore(self, trainer: L.Trainer) -> bool:
        """Load the best weights into the module, and print their epoch. Returns False if there are none."""
        best_by = f"best by {self.monitor} (mode={self.mode!r})"
        if file := self._find(trainer):
            restore_weights(trainer, file)
            (epoch,) = re.findall(r"-epoch=(\d+)-", Path(file).name)
            rank_zero_info(f"{self.owner}: restored the weights of epoch {epoch}, the {best_by}.")
        else:
            rank_zero_info(f"{self.owner}: restored no weights, since no epoch was the {best_by}.")
        return bool(file)

    def _find(self, trainer: L.Trainer) -> str:
        """Return the file's path, equal on all ranks. The file may have been moved beside the resumed checkpoint."""
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


def _write_validated_weights(trainer: L.Trainer, path: Path) -> Lock | None:
    lock = None
    checkpoint = {"state_dict": trainer.strategy.lightning_module_state_dict()}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):  # writes the averaged weights into the checkpoint
            callback.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)
    if trainer.is_global_zero:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lock = hold(path)
        torch.save({"state_dict": checkpoint["state_dict"]}, path)
    trainer.strategy.barrier()
    return lock
