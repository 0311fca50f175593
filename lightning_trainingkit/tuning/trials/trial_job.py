"""What every trial of a search does, and the order for one attempt."""

import inspect
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.trial_callbacks import check_callbacks, why_not_pickled

__all__ = ["TrialJob", "TrialOrder", "attempt_folder"]

_OWN = {
    "callbacks": "Give them to `callbacks`.",
    "max_epochs": "Give it to `max_epochs`.",
    "devices": "Give it to the search: each trial gets its own devices.",
    "accelerator": "Give it to the search.",
    "num_nodes": "A trial runs on one machine.",
    "default_root_dir": "Each attempt has a folder of its own.",
    "fast_dev_run": "A trial must train to be compared.",
    "enable_checkpointing": "Each trial keeps its last checkpoint.",
}


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """What every trial does.

    Args:
        max_epochs: Epochs of a trial.
        monitor: Metric that is logged in validation, and by which trials are compared.
        mode: Whether low (``"min"``) or high (``"max"``) values are good.
        trainer_options: Further arguments of Lightning's Trainer, such as ``precision``.
        callbacks: Callbacks, which are pickled: each trial has its own copies.
        keep_best: Keep the weights of the best epoch as ``best.ckpt`` in the folder of the attempt.
        wandb: ``"offline"``, ``"online"`` or ``"disabled"``; by default the variable WANDB_MODE, or offline.
        project: Project in W&B, by default the variable WANDB_PROJECT or the kit's.
        job_type: The part of the trials in their group in W&B.

    Raises:
        TypeError: If ``callbacks`` is no list of callbacks.
        ValueError: If an argument of the Trainer is unknown, or has no place in a trial.

    Example:
        >>> TrialJob(max_epochs=3, monitor="val/acc", mode="max").monitor
        'val/acc'
    """

    max_epochs: int
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    trainer_options: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[L.Callback] = ()
    keep_best: bool = False
    wandb: str | None = None
    project: str | None = None
    job_type: str = "train"

    def __post_init__(self) -> None:
        _check.integer("max_epochs", self.max_epochs, "Give the epochs of a trial.", least=1)
        _check.one_of("mode", self.mode, ("min", "max"), "Say which end of the metric is good.")
        check_callbacks(self.callbacks)
        if self.wandb is not None:
            _check.one_of("wandb", self.wandb, ("offline", "online", "disabled"), "Offline needs no account.")
        for name, why in _OWN.items():
            if name in self.trainer_options:
                raise ValueError(f"`trainer_options` must not hold {name}, got {self.trainer_options[name]!r}. {why}")
        known = [*inspect.signature(L.Trainer).parameters]
        for name in self.trainer_options:
            if name not in known:
                raise ValueError(
                    f"`trainer_options` must hold arguments of Lightning's Trainer, got {name!r}. There are: "
                    f"{', '.join(_check.nearest(name, known))}."
                )

    def pickled(self) -> bytes:
        """The job for the process of a trial.

        Raises:
            TypeError: If it cannot be pickled.
        """
        try:
            return pickle.dumps(self)
        except Exception as error:
            raise TypeError(why_not_pickled(self.callbacks, self.trainer_options, error)) from error

    @property
    def wandb_mode(self) -> str:
        """The mode of W&B."""
        return self.wandb or os.environ.get("WANDB_MODE", "offline")


@dataclass(frozen=True, kw_only=True)
class TrialOrder:
    """One attempt, as its process gets it.

    Args:
        source: The pickled source of the module and the data.
        job: The pickled job.
        study: Name of the study.
        params: The hyperparameters.
        seed: Seed of the training.
        ticket: Number of the ticket.
        attempt: Number of the attempt.
        folder: Folder of the study on this machine.
        label: What varies, for the name of the run.
        accelerator: ``cpu``, ``gpu`` or another one of Lightning's.
        ranks: Number of processes.
        rank: Number of this process.
        port: Port on which the ranks meet.
        threads: Threads of torch in this process. 0 leaves it as it is.
        environment: Environment variables.
        worker: Process number of the worker.
    """

    source: bytes
    job: bytes
    study: str
    params: dict[str, Any]
    seed: int
    ticket: int
    attempt: int
    folder: Path
    label: str
    accelerator: str
    ranks: int
    rank: int
    port: int
    threads: int
    environment: dict[str, str]
    worker: int

    @property
    def home(self) -> Path:
        """The folder of this attempt."""
        return attempt_folder(self.folder, self.ticket, self.attempt)

    @property
    def earlier(self) -> Path | None:
        """The newest checkpoint of an earlier attempt."""
        found = (attempt_folder(self.folder, self.ticket, each) / LAST for each in reversed(range(self.attempt)))
        return next((path for path in found if path.is_file()), None)


LAST, BEST = "last.ckpt", "best.ckpt"


def attempt_folder(folder: Path, ticket: int, attempt: int) -> Path:
    """The folder of an attempt. No other attempt writes there."""
    return folder / f"trial-{ticket:04d}" / f"attempt-{attempt}"
