"""Keep the weights of each minimum of a cyclic schedule: an ensemble from one training."""

from pathlib import Path
from typing import Any

from lightning_trainingkit._files import put_in_place, sweep, temporary
from lightning_trainingkit._lightning import AsyncCheckpointIO, L, rank_zero_info, rank_zero_warn, refuse_other_package
from lightning_trainingkit._locks import Lock
from lightning_trainingkit.callbacks._lightning import fast_dev_run
from lightning_trainingkit.callbacks.checkpointing.own_folder import hold_folder
from lightning_trainingkit.callbacks.checkpointing.safe_hyperparameters import say_left_out, without_unsafe
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.schedules import cycle_ends
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["SnapshotCheckpoint"]


class SnapshotCheckpoint(L.Callback):
    """Save the weights at each minimum of a cyclic learning rate, as members of an ensemble.

    ``snapshot-1.ckpt``, ``snapshot-2.ckpt``, ... are written after the optimizer steps ``floor(i T / M)``, the ends of
    ``M`` equal cycles in ``T`` steps. The schedule is yours to set: ``cyclic_cosine`` with the same number of cycles,
    or another one with ``M`` equal cycles. ``EnsembleAverage("runs/x/snapshots/*.ckpt")`` averages their predictions.

    - **Weights**: the training weights, also with ``EMAWeightAveraging``.
    - **Files** appear whole or not at all, and load by ``load_from_checkpoint``. They hold no optimizer state: resume
      from Lightning's own checkpoints.
    - **Resume**: a resumed run goes on in its folder and ends with the same files. A run made longer adds snapshots.
    - **Early end**: the run has fewer snapshots, and warns. A ``fast_dev_run`` writes none.

    Training is unchanged. README.md in this folder tells more.

    Attributes:
        paths: The snapshots of this run so far, the oldest first.

    Args:
        cycles: Number of cycles ``M`` of the schedule, positive, at most the number of optimizer steps.
        dirpath: Folder to write to, by default ``snapshots`` beside Lightning's ``checkpoints``. It must hold no
            snapshots of another run: a pattern would mix both runs.

    Raises:
        TypeError: If ``cycles`` is no integer.
        ValueError: If ``cycles`` is below 1 or above the number of optimizer steps, or the number of steps is unknown.
            If there are several optimizers. If the folder is remote, used by another live run, or holds snapshots of
            another run.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[SnapshotCheckpoint(cycles=5)], logger=False, max_epochs=50)

    References:
        Huang et al., "Snapshot Ensembles: Train 1, get M for free", ICLR 2017, arXiv:1704.00109.
    """

    def __init__(self, cycles: int, *, dirpath: str | None = None) -> None:
        self.cycles = _check.integer("cycles", cycles, "Give the number of the schedule's cycles.", least=1)
        self.dirpath = dirpath
        self._forget()

    def _forget(self) -> None:
        self._lock: Lock | None = None  # on the folder, during a fit
        self._folder = ""
        self._steps: list[int] = []  # optimizer steps of the snapshots so far
        self._left: list[int] = []  # optimizer steps of the snapshots to come

    @property
    def paths(self) -> list[str]:
        """The snapshots of this run so far, the oldest first."""
        return [str(Path(self._folder) / f"snapshot-{i + 1}.ckpt") for i in range(len(self._steps))]

    def state_dict(self) -> dict[str, Any]:
        """The folder, and the optimizer steps of the snapshots."""
        return {"folder": self._folder, "steps": list(self._steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state."""
        self._folder = state_dict["folder"]
        self._steps = list(state_dict["steps"])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state for each fit, before a checkpoint's state is loaded."""
        refuse_other_package(self, trainer)
        if stage == "fit":
            self._forget()
            say_left_out(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Plan the snapshots, and check that no other run uses the folder."""
        if fast_dev_run(trainer):
            return
        if len(trainer.optimizers) != 1:
            raise ValueError(
                f"`SnapshotCheckpoint` must have one optimizer, whose steps are counted, got {len(trainer.optimizers)}."
                " Use a ModelCheckpoint with `every_n_train_steps` instead."
            )
        total = trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise ValueError(
                f"`cycles` must divide a known number of optimizer steps, got {self.cycles} for a training without "
                "one. Set max_steps of the Trainer."
            )
        ends = cycle_ends(int(total), self.cycles)
        self._choose_folder(trainer)
        if not set(self._steps) <= set(ends):
            rank_zero_info(
                f"Snapshots of before the resume are of steps {self._steps}, planned for another number of steps or "
                f"cycles. The next snapshots are for the ends of {self.cycles} cycles in {int(total)} steps: {ends}."
            )
        self._left = [end for end in ends if end >= trainer.global_step and end not in self._steps]
        self._save_if_due(trainer)  # the resumed checkpoint may be from right before a snapshot

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at the end of a cycle."""
        self._save_if_due(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn about missing snapshots."""
        mark_trained(pl_module)
        if self._left:
            rank_zero_warn(
                f"Training ended after {trainer.global_step} optimizer steps with {len(self._steps)} snapshots: "
                f"{len(self._left)} of {self.cycles} cycles, with ends at {self._left}, did not end."
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Release the folder."""
        self._lock = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Release the folder."""
        self._lock = None

    def _save_if_due(self, trainer: L.Trainer) -> None:
        if not self._left or trainer.global_step < self._left[0]:
            return
        self._left = [end for end in self._left if end > trainer.global_step]
        self._steps.append(trainer.global_step)
        with without_unsafe(trainer):
            self._save(trainer, self.paths[-1])

    def _save(self, trainer: L.Trainer, path: str) -> None:
        if isinstance(trainer.strategy.checkpoint_io, AsyncCheckpointIO):  # writes later
            trainer.save_checkpoint(path, weights_only=True)
            return
        written = trainer.strategy.broadcast(str(temporary(path)))
        trainer.save_checkpoint(written, weights_only=True)
        if trainer.is_global_zero:
            put_in_place(path, Path(written))
        trainer.strategy.barrier()

    def _choose_folder(self, trainer: L.Trainer) -> None:
        known, chosen = self._folder, self.dirpath
        if chosen is None:
            chosen = known if known and Path(known).is_dir() else _default_folder(trainer)
        if "://" in chosen:
            raise ValueError(
                f"`dirpath` must be a local folder, where a file can be renamed, got {chosen}. Copy the files later."
            )
        self._folder = trainer.strategy.broadcast(str(Path(chosen).absolute()))
        self._lock = hold_folder(trainer, self._folder)
        there, mine = [], [Path(path).name for path in self.paths]
        if trainer.is_global_zero:
            sweep(self._folder)
            there = sorted(path.name for path in Path(self._folder).glob("snapshot-*.ckpt"))
        there = trainer.strategy.broadcast(there)
        # In its old folder a resumed run finds further snapshots that it wrote before it was killed.
        others = [name for name in there if name not in mine] if self._folder != known else []
        if others:
            raise ValueError(
                f"`dirpath` must hold no snapshots of another run, got {self._folder} with {', '.join(others)}. "
                "Move them away, give another folder, or resume that run by `ckpt_path`."
            )
        gone = [name for name in mine if name not in there]
        if gone:
            rank_zero_warn(f"Snapshots of before the resume are not in {self._folder}: {', '.join(gone)}.")


def _default_folder(trainer: L.Trainer) -> str:
    parts = [trainer.default_root_dir]
    if trainer.loggers:  # as ModelCheckpoint does
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        parts = [logger.save_dir or trainer.default_root_dir, str(logger.name), version]
    return "/".join([*map(str, parts), "snapshots"])
