"""Cross-validation: train on all folds but one, validate on that one, for each fold and each configuration."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import resolve_mode
from lightning_trainingkit.tuning.folds.fold_facts import check_stored, groups_named
from lightning_trainingkit.tuning.folds.fold_race import Race, run_race
from lightning_trainingkit.tuning.folds.fold_scores import CrossValidation
from lightning_trainingkit.tuning.folds.fold_source import fold_source, look_and_divide
from lightning_trainingkit.tuning.folds.fold_verdict import judge, last_value
from lightning_trainingkit.tuning.searches.search_settings import training_of
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import Source, make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_callbacks import check_callbacks
from lightning_trainingkit.tuning.trials.trial_job import TrialJob
from lightning_trainingkit.tuning.trials.trial_parts import KeepFinal, SeedOfTrial, open_home

__all__ = ["cross_validate"]


def cross_validate(
    module: Any,
    data: Any = None,
    *,
    max_epochs: int,
    folds: int = 5,
    repeats: int = 1,
    stratify: bool = True,
    groups: Sequence[Any] | str | None = None,
    configurations: Sequence[Mapping[str, Any]] | None = None,
    monitor: str = "val/loss",
    mode: str | None = None,
    prune: bool = False,
    seed: int = 0,
    name: str = "cross_validation",
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
) -> CrossValidation:
    r"""Cross-validate a module on the train set of its data, in one configuration or in several.

    Each fold is a trial: it has its own process, is a run of one W&B group, and resumes from its checkpoint. The same
    call in the same folder goes on, and trains nothing twice.

    - **Data**: the train set alone. The validation and test sets of the DataModule take no part. Held-out images have
      the transforms of the validation set.
    - **Score**: ``monitor`` at the last validation, not at its best epoch, which the held-out fold would choose.
    - **Interval**: :math:`\pm t \, s \sqrt{1/n + 1/(K - 1)}`, since the training sets overlap.
    - **Seeds**: a fold has the same seed in all configurations.

    Args:
        module: A LightningModule with saved hyperparameters, its class, or a function of hyperparameters that returns
            the module, or the pair of module and DataModule.
        data: A LightningDataModule or its class.
        max_epochs: Epochs of a training.
        folds: Number of folds, K.
        repeats: How often the train set is divided.
        stratify: Whether each fold has each class in the same proportion. False for targets that are no classes.
        groups: Group of each training example, or the attribute of the train set that has them. A group is in one
            fold.
        configurations: Hyperparameters of each configuration, such as ``[{"lr": 0.1}, {"lr": 0.01}]``. By default the
            module as it is given.
        monitor: Metric that is logged in validation.
        mode: Whether low (``"min"``) or high (``"max"``) values are good. By default ``"min"``, unless the name of
            ``monitor`` is a score's: a score needs a mode.
        prune: Stop training configurations that lose against the best by Wilcoxon's test on the same folds. Before the
            fourth fold it can prune nothing.
        seed: Fixes the folds and the trainings.
        name: Name of the study and of the W&B group.
        folder: Folder for checkpoints and runs, by default ``runs/NAME``.
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
        Scores by fold, means with intervals, paired comparisons, and the checkpoints for ``EnsembleAverage``.

    Raises:
        ImportError: If optuna or scikit-learn is not installed.
        RuntimeError: If the first trainings all fail, with the traceback of the first.
        TypeError: If the module or the data cannot be pickled or found by name.
        ValueError: If the data has no train set that can be divided, if a class or the groups are fewer than the folds,
            if a hyperparameter does not exist, or if the folder has a study of other folds or configurations.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> module = ImageClassifier("small_resnet", num_classes=10, model_options={"in_channels": 1})
        >>> cross_validate(module, DigitsDataModule(), max_epochs=5, folds=1000)
        Traceback (most recent call last):
        ValueError: `folds` must be at most the size of the rarest class, got 1000: class 8 has 118 of 1222 examples...

    References:
        Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003; Kohavi, "A Study of
        Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection", IJCAI 1995.
    """
    source = module if isinstance(module, Source) else make_source(module, data)
    chosen = _check_configurations(source, configurations)
    _check.flag("prune", prune)
    _check.flag("stratify", stratify)
    _check.integer("seed", seed, "Give any whole number.", least=0)
    better = resolve_mode(monitor, mode)
    job = TrialJob(
        max_epochs=max_epochs,
        monitor=monitor,
        mode=better,
        trainer_options=trainer_options or {},
        callbacks=[SeedOfTrial(), KeepFinal(), *check_callbacks(callbacks)],
        wandb=wandb,
        project=project,
    )
    division, examples, notes = look_and_divide(
        source, chosen[0], folds=folds, repeats=repeats, stratify=stratify, groups=groups, seed=seed
    )
    home = open_home(folder, name)
    space = {"configuration": list(range(len(chosen))), "fold": list(range(len(division)))}
    if len(chosen) == 1:
        del space["configuration"]
    facts = {
        "folds": folds,
        "repeats": repeats,
        "stratify": stratify,
        "seed": seed,
        "groups": groups_named(groups),
        "configurations": json.dumps(chosen, default=str, sort_keys=True),
        **training_of(source, trainer_options, callbacks),
        "data": f"{examples} {division.version}",
    }
    stored = storage or home / "study.log"
    check_stored(stored, name, facts)
    study = Study(stored, name, Space(space), 1, mode=better, seed=seed, points=[_point(space, 0, 0)])
    study.check_job({"monitor": monitor, "max_epochs": job.max_epochs})
    study.check_facts(facts)
    before = len(study.results())
    if before:
        notes.append(
            f"{before} trainings were there before, in {storage or home}. Another `name` and `folder` train all."
        )
    trials = fold_source(source, chosen, division, seed, examples)
    while True:
        race = _race_of(study, len(chosen), len(division), prune)
        study.owe([_point(space, *each) for each in race.owed])
        if race.is_over and study.is_done():
            break
        run_trials(
            study,
            trials,
            job,
            folder=home,
            jobs=jobs,
            devices=devices,
            accelerator=accelerator,
            verbose=verbose,
        )
    return judge(study, race, chosen, division, monitor, prune, notes)


def _check_configurations(source: Source, given: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    advice = 'Give a list such as [{"lr": 0.1}, {"lr": 0.01}].'
    if given is None:
        given = [{}]
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise TypeError(f"`configurations` must be a list of dicts, got {type(given).__name__}. {advice}")
    if not given or not all(isinstance(each, Mapping) for each in given):
        raise ValueError(f"`configurations` must hold dicts, at least one, got {given!r}. {advice}")
    chosen = [dict(each) for each in given]
    for number, each in enumerate(chosen):
        for name in each:
            if name not in source.names:
                known = ", ".join(_check.nearest(str(name), source.names)) or "none"
                raise ValueError(
                    f"`configurations` must name hyperparameters of the module or the data, got {name!r}. There are: "
                    f"{known}."
                )
        if each in chosen[:number]:
            raise ValueError(f"`configurations` must hold each configuration once, got {each} twice. Leave one out.")
    return chosen


def _point(space: Mapping[str, Any], configuration: int, fold: int) -> dict[str, int]:
    point = {"configuration": configuration, "fold": fold}
    return {name: point[name] for name in space}


def _race_of(study: Study, configurations: int, folds: int, prune: bool) -> Race:
    values: dict[tuple[int, int], float | None] = {}
    for result in study.results():
        key = result.params.get("configuration", 0), result.params["fold"]
        values[key] = last_value(result)
    return run_race(values, configurations, folds, mode=study.mode, prune=prune)
