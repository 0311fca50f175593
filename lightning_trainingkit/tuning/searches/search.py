"""Steps 4 and 5: search for hyperparameters, first coarsely, then around the best results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.searches.samplers import Pruner, Sampler
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.searches.search_run import Search
from lightning_trainingkit.tuning.trials.space import Space

__all__ = ["coarse_search", "refine_search"]


def coarse_search(
    module: Any,
    data: Any = None,
    *,
    space: Space | Mapping[str, Any] | str | Path | None = None,
    rate: float | None = None,
    trials: int = 16,
    epochs: int = 3,
    monitor: str = "val/loss",
    mode: str | None = None,
    sampler: Sampler = "quasi-random",
    pruner: Pruner = "median",
    storage: str | Path | None = None,
    name: str = "coarse",
    output: str | Path | None = None,
    jobs: int | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    seed: int = 0,
    trainer_options: Mapping[str, Any] | None = None,
    callbacks: Sequence[L.Callback] = (),
    wandb: str | None = None,
    verbose: bool = True,
) -> SearchResult:
    """Train many configurations for a few epochs each: the lecture's step 4.

    Each trial trains in a process of its own, at a constant learning rate. The module's schedules are off. Module, data
    and random states are left as they were. The same call goes on with an interrupted search, and the same call in
    another process or on another machine joins it. A finished search is read, not trained again.

    Args:
        module: A LightningModule that called ``save_hyperparameters``, its class, or a function that returns a module.
        data: A LightningDataModule, its class, or None for the module's own loaders.
        space: Ranges and choices by name, a YAML file with them, or None: a decade around ``rate`` to each side, and
            weight decay 0, 1e-5 or 1e-4. Arguments of the data are ``data.NAME``.
        rate: Step 3's learning rate, for the default space. By default the module's own.
        trials: Number of trials over all workers.
        epochs: Epochs of a trial. The lecture takes 1 to 5.
        monitor: Metric that validation logs.
        mode: ``"min"`` or ``"max"``, the better end of the metric. A loss needs none.
        sampler: ``"quasi-random"``, ``"random"``, ``"grid"``, ``"tpe"``, ``"gp"``, ``"cma-es"``, or Optuna's own.
        pruner: ``"median"``, ``"hyperband"``, ``"none"``, or one of Optuna's.
        storage: A file for a journal, or the URL of a database. By default ``study.log`` in ``output``.
        name: Name of the study, and of its group of runs in W&B.
        output: Folder for checkpoints and runs, by default ``runs/NAME``.
        jobs: Trials at once. By default one, or as many as the GPUs have room for.
        devices: Devices of each trial.
        accelerator: As in Lightning's Trainer.
        seed: Seed of the search. Each trial has a seed of its own.
        trainer_options: Further arguments of Lightning's Trainer, such as ``precision``.
        callbacks: Callbacks of each trial. They are copied.
        wandb: ``"offline"``, ``"online"`` or ``"disabled"``. By default the variable WANDB_MODE, or offline.
        verbose: Whether to show the progress.

    Returns:
        The best hyperparameters, the trials, the tuning playbook's verdicts, and the space for ``refine_search``.

    Raises:
        TypeError: If the module cannot be pickled or found by name.
        ValueError: If a hyperparameter is unknown, a range is wrong, or the study has other settings.
        RuntimeError: If all trials fail, with the first traceback.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> coarse_search(ImageClassifier, DigitsDataModule, space={"lr": {"low": 0.1, "high": 0.01}})
        Traceback (most recent call last):
        ValueError: `space` must have a valid range for 'lr': `high` must be above `low` 0.1, got 0.01: reversed. ...

    References:
        CS231n, "Training neural networks", choosing hyperparameters, step 4.
    """
    return Search(
        "coarse_search",
        module,
        data,
        space=space,
        rate=rate,
        trials=trials,
        epochs=epochs,
        monitor=monitor,
        mode=mode,
        sampler=sampler,
        pruner=pruner,
        storage=storage,
        name=name,
        output=output,
        seed=seed,
        trainer_options=trainer_options,
        callbacks=callbacks,
        wandb=wandb,
    ).run(jobs=jobs, devices=devices, accelerator=accelerator, verbose=verbose)


def refine_search(
    module: Any,
    data: Any = None,
    *,
    space: Space | Mapping[str, Any] | str | Path | SearchResult | None = None,
    rate: float | None = None,
    trials: int = 16,
    epochs: int = 10,
    monitor: str = "val/loss",
    mode: str | None = None,
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    storage: str | Path | None = None,
    name: str = "refine",
    output: str | Path | None = None,
    jobs: int | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    seed: int = 0,
    trainer_options: Mapping[str, Any] | None = None,
    callbacks: Sequence[L.Callback] = (),
    wandb: str | None = None,
    verbose: bool = True,
) -> SearchResult:
    """Search around the best results of a coarse search, for more epochs: the lecture's step 5.

    The rate of each trial is constant, as the lecture has it: no decay. The three best configurations of the coarse
    search are tried first, and then Optuna's TPE learns from all results. Everything more is as in ``coarse_search``.

    Args:
        module: A LightningModule that called ``save_hyperparameters``, its class, or a function that returns a module.
        data: A LightningDataModule, its class, or None for the module's own loaders.
        space: What ``coarse_search`` returned, or a space as there.
        rate: Step 3's learning rate, for the default space.
        trials: Number of trials over all workers.
        epochs: Epochs of a trial. The lecture takes 10 to 20.
        monitor: Metric that validation logs.
        mode: ``"min"`` or ``"max"``, the better end of the metric. A loss needs none.
        sampler: A name as in ``coarse_search``, or Optuna's own.
        pruner: ``"median"``, ``"hyperband"``, ``"none"``, or one of Optuna's.
        storage: A file for a journal, or the URL of a database. By default ``study.log`` in ``output``.
        name: Name of the study, and of its group of runs in W&B.
        output: Folder for checkpoints and runs, by default ``runs/NAME``.
        jobs: Trials at once. By default one, or as many as the GPUs have room for.
        devices: Devices of each trial.
        accelerator: As in Lightning's Trainer.
        seed: Seed of the search. Each trial has a seed of its own.
        trainer_options: Further arguments of Lightning's Trainer, such as ``precision``.
        callbacks: Callbacks of each trial. They are copied.
        wandb: ``"offline"``, ``"online"`` or ``"disabled"``. By default the variable WANDB_MODE, or offline.
        verbose: Whether to show the progress.

    Returns:
        As ``coarse_search``.

    Raises:
        TypeError: If the module cannot be pickled or found by name.
        ValueError: If a hyperparameter is unknown, a range is wrong, or the study has other settings.
        RuntimeError: If all trials fail, with the first traceback.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> refine_search(ImageClassifier, DigitsDataModule, space={"lr": {"low": 0.1, "high": 0.01}})
        Traceback (most recent call last):
        ValueError: `space` must have a valid range for 'lr': `high` must be above `low` 0.1, got 0.01: reversed. ...

    References:
        CS231n, "Training neural networks", choosing hyperparameters, step 5.
    """
    first: list[dict[str, Any]] = []
    if isinstance(space, SearchResult):
        narrowed = space.next_space or space.space
        first = [dict(each.params) for each in space.ranked[:3]]
        space = narrowed
    return Search(
        "refine_search",
        module,
        data,
        space=space,
        rate=rate,
        trials=trials,
        epochs=epochs,
        monitor=monitor,
        mode=mode,
        sampler=sampler,
        pruner=pruner,
        storage=storage,
        name=name,
        output=output,
        seed=seed,
        trainer_options=trainer_options,
        callbacks=callbacks,
        wandb=wandb,
        first=first,
    ).run(jobs=jobs, devices=devices, accelerator=accelerator, verbose=verbose)
