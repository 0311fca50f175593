"""Train the members of an ensemble: the same module with several seeds, as trials of one study."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lightning_trainingkit._files import put_in_place, temporary
from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import resolve_mode
from lightning_trainingkit.nn.weights.checkpoint import MANIFEST, write_manifest
from lightning_trainingkit.tuning.searches.search_settings import training_of
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import Source, make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_callbacks import check_callbacks
from lightning_trainingkit.tuning.trials.trial_job import BEST, TrialJob
from lightning_trainingkit.tuning.trials.trial_parts import SeedOfTrial, open_home

__all__ = ["train_members"]

_SEEDS = {"low": 0, "high": 2**31 - 1, "integer": True}


def train_members(
    module: Any,
    data: Any = None,
    members: int = 5,
    *,
    max_epochs: int,
    monitor: str = "val/loss",
    mode: str | None = None,
    seed: int = 0,
    name: str = "members",
    folder: str | Path | None = None,
    storage: str | Path | None = None,
    callbacks: Sequence[L.Callback] = (),
    trainer_options: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    wandb: str | None = None,
    project: str | None = None,
    verbose: bool = True,
) -> list[str]:
    """Train independent models that differ only in their seed, for ``EnsembleAverage``.

    Each member is a trial: it has its own process, is a run ``seed=3`` of one W&B group, and resumes from its
    checkpoint. A member keeps the weights of its best epoch. The same call in the same folder goes on, also with more
    members, and trains none twice. The seeds fix the initial weights and the order of the examples, not the split of
    the data.

    Args:
        module: A LightningModule with saved hyperparameters, its class, or a function without arguments that returns
            the module, or the pair of module and DataModule.
        data: A LightningDataModule, its class, or None for the module's own loaders.
        members: Number of members, with the seeds ``seed``, ``seed + 1`` and so on.
        max_epochs: Epochs of a training.
        monitor: Metric that is logged in validation. It chooses the best epoch.
        mode: Whether low (``"min"``) or high (``"max"``) values are good. By default ``"min"``, unless the name of
            ``monitor`` is a score's: a score needs a mode.
        seed: Seed of the first member.
        name: Name of the study and of the W&B group.
        folder: Folder for the members, by default ``runs/NAME``.
        storage: A journal file or the URL of a database, for many workers. By default a journal in ``folder``.
        callbacks: Callbacks, which are pickled: each training has its own copies.
        trainer_options: Arguments of Lightning's Trainer, such as ``precision``.
        jobs: Trainings at once, by default one, or with GPUs as many as they have room for.
        devices: Devices of each training.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"`` or another one of Lightning's.
        wandb: ``"offline"``, ``"online"`` or ``"disabled"``; by default the variable WANDB_MODE, or offline.
        project: Project in W&B.
        verbose: Show the progress.

    Returns:
        A folder for each member, ``FOLDER/seed-N``, as ``EnsembleAverage`` and ``load_best`` read it.

    Raises:
        ImportError: If optuna is not installed.
        RuntimeError: If a training fails, with its traceback. The others are finished first.
        TypeError: If the module or the data cannot be pickled or found by name.
        ValueError: If the data has no train set, or if the folder has members of another module, seed,
            number of epochs or Trainer.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> module = ImageClassifier("small_resnet", num_classes=10, model_options={"in_channels": 1})
        >>> train_members(module, DigitsDataModule(), members=0, max_epochs=5)
        Traceback (most recent call last):
        ValueError: `members` must be at least 1, got 0. Give the number of models.

    References:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, arXiv:1612.01474.
    """
    _check.integer("members", members, "Give the number of models.", least=1)
    _check.integer("seed", seed, "Give any whole number.", least=0)
    source = module if isinstance(module, Source) else make_source(module, data)
    better = resolve_mode(monitor, mode)
    job = TrialJob(
        max_epochs=max_epochs,
        monitor=monitor,
        mode=better,
        trainer_options=trainer_options or {},
        callbacks=[SeedOfTrial(), *check_callbacks(callbacks)],
        keep_best=True,
        wandb=wandb,
        project=project,
    )
    home = open_home(folder, name)
    points = [{"seed": seed + number} for number in range(members)]
    study = Study(
        storage or home / "study.log", name, Space({"seed": _SEEDS}), 1, mode=better, seed=seed, points=points
    )
    study.check_facts(training_of(source, trainer_options, callbacks))
    study.owe(points)
    trials = Source(
        _MemberBuild(source), given={}, names=("seed",), describe=f"members: {source.describe}", modules=source.modules
    )
    run_trials(study, trials, job, folder=home, jobs=jobs, devices=devices, accelerator=accelerator, verbose=verbose)
    return [_served(result, home, monitor, better) for result in study.results()[:members]]


class _MemberBuild:
    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, params: Mapping[str, Any]) -> tuple[L.LightningModule, L.LightningDataModule | None]:
        L.seed_everything(params["seed"], workers=True, verbose=False)
        return self.source({})


def _served(result: Result, home: Path, monitor: str, mode: str) -> str:
    """Put a member's best weights into its own folder, with the manifest that says which file is best."""
    seed = result.params["seed"]
    if result.state != "completed":
        last = result.error or "its monitored value was not finite"
        raise RuntimeError(
            f"`module` must train with each seed, got a member of seed {seed} that {result.state}. Mend the error, and "
            f"take another `name` and `folder`:\n{last}"
        )
    folder, best = home / f"seed-{seed}", Path(result.outcome["best"] or "lost")
    path = folder / BEST
    # The folder may have a member of a study that was deleted.
    if not (folder / MANIFEST).is_file() or (best.is_file() and not (path.is_file() and path.samefile(best))):
        folder.mkdir(parents=True, exist_ok=True)
        if not best.is_file():
            raise FileNotFoundError(
                f"`folder` must hold the weights of each member, got none of seed {seed}, {best}. Give all workers one "
                "shared folder."
            )
        _link(best, path)
        epoch = int(result.outcome["best_epoch"]) - 1
        step = int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
        score = {str(path): torch.tensor(result.value, dtype=torch.float64)}
        write_manifest(str(folder), monitor, mode, score, {str(path): [epoch, step]})
    return str(folder)


def _link(source: Path, path: Path) -> None:
    """Give a file a second name, or copy it where the file system has no second names."""
    written = temporary(path)
    with suppress(FileNotFoundError):
        written.unlink()
    try:
        os.link(source, written)
    except OSError:
        shutil.copyfile(source, written)
    put_in_place(path)
