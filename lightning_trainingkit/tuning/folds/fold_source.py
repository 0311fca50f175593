"""The source of the trials of a cross-validation: a configuration, trained on a fold."""

import inspect
import logging
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_trainingkit._lightning import L, is_overridden, isolate_rng
from lightning_trainingkit.tuning.folds.fold_data import fingerprint, first_loader, serve_fold, train_loader
from lightning_trainingkit.tuning.folds.fold_labels import find_column, find_labels
from lightning_trainingkit.tuning.folds.fold_view import evaluation_view
from lightning_trainingkit.tuning.folds.folds import Folds, make_folds
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["fold_source", "look_and_divide"]


def fold_source(
    source: Source, configurations: Sequence[Mapping[str, Any]], folds: Folds, seed: int, examples: str
) -> Source:
    """The source whose hyperparameters are the number of the configuration and the number of the fold.

    Args:
        source: Builds the module and the data from the hyperparameters of a configuration.
        configurations: The hyperparameters.
        folds: The division of the train set.
        seed: Seed of the trainings. A fold has the same seed in all configurations.
        examples: The fingerprint of the train set.
    """
    return Source(
        _FoldBuild(source, configurations, folds, seed, examples),
        given={},
        names=("configuration", "fold"),
        describe=f"{source.describe}, {len(folds)} folds",
        modules=source.modules,
    )


class _FoldBuild:
    def __init__(
        self, source: Source, configurations: Sequence[Mapping[str, Any]], folds: Folds, seed: int, examples: str
    ) -> None:
        self.source, self.configurations, self.folds = source, configurations, folds
        self.seed, self.examples = seed, examples

    def __call__(self, params: Mapping[str, Any]) -> tuple[L.LightningModule, L.LightningDataModule]:
        fold = params["fold"]
        seed = int(np.random.SeedSequence([self.seed, fold]).generate_state(1)[0])
        L.seed_everything(seed, workers=True, verbose=False)
        module, data = self.source(self.configurations[params.get("configuration", 0)])
        data = _data_of(data)
        serve_fold(data, self.folds, fold, self.examples)
        return module, data


def look_and_divide(
    source: Source,
    hyperparameters: Mapping[str, Any],
    *,
    folds: int,
    repeats: int,
    stratify: bool,
    groups: Sequence[Any] | str | None,
    seed: int,
) -> tuple[Folds, str, list[str]]:
    """Build the data once, look at its train set, and divide it. The user's objects and random states do not change.

    Args:
        source: Builds the module and the data.
        hyperparameters: Of the first configuration.
        folds: Folds of one repeat.
        repeats: Number of repeats.
        stratify: Whether each fold has each class in the same proportion.
        groups: Group of each example of the train set, or the name of the attribute of its data set that has them.
        seed: Fixes the division.

    Returns:
        The folds, the fingerprint of the train set, and notes.
    """
    with isolate_rng():
        module, data = pickle.loads(pickle.dumps(source))(dict(hyperparameters))
        data = _data_of(data)
        data.trainer = _trainer()
        data.prepare_data()
        data.setup("fit")
        loader = train_loader(data.train_dataloader())
        other, several = None, ""
        if is_overridden("val_dataloader", data, L.LightningDataModule):
            served = data.val_dataloader()
            several = _check_validation(module, served)
            other = first_loader(served)
        _, note = evaluation_view(loader.dataset, None if other is None else other.dataset)
        labels, read = find_labels(loader.dataset) if stratify else (None, "")
        examples, found = fingerprint(loader.dataset), groups
        if isinstance(groups, str):
            column = find_column(loader.dataset, (groups,))
            if column is None:
                raise ValueError(
                    f"`groups` must name an attribute of the train set with a value for each example, got {groups!r}. "
                    "Give a list with a group for each example."
                )
            found = column.tolist()
    size = len(loader.dataset)  # type: ignore[arg-type]
    divided = make_folds(size, folds, repeats, labels=labels, groups=found, seed=seed)
    return divided, examples, [each for each in (several, note, read) if each]


def _data_of(data: L.LightningDataModule | None) -> L.LightningDataModule:
    if data is None:
        raise WrongSetupError(
            "`data` must be a LightningDataModule for a cross-validation, got the module's own loaders. Move them into "
            "a LightningDataModule."
        )
    return data


def _check_validation(module: L.LightningModule, served: Any) -> str:
    """Refuse several validation loaders if ``validation_step`` needs the number of the loader, or make a note."""
    count = len(served) if isinstance(served, list | tuple | Mapping) else 1
    number = inspect.signature(module.validation_step).parameters.get("dataloader_idx")
    if count > 1 and number is not None and number.default is inspect.Parameter.empty:
        raise WrongSetupError(
            f"`data` must have one validation loader where `validation_step` takes `dataloader_idx`, got {count}. A "
            "held-out fold is one loader: return one from `val_dataloader`, or write `dataloader_idx=0`."
        )
    return f"A held-out fold takes the place of all {count} validation loaders." if count > 1 else ""


def _trainer() -> L.Trainer:
    """A Trainer that a DataModule may ask for its number of devices."""
    logger = logging.getLogger(L.__name__)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return L.Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
    finally:
        logger.setLevel(level)
