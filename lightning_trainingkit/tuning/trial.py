"""Train a copy of a module for a few steps. Nothing of the user's changes."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lightning_trainingkit._lightning import DummyLogger, L, is_overridden, isolate_rng
from lightning_trainingkit.callbacks.diagnostics.stand_ins import Nothing
from lightning_trainingkit.tuning._lightning import refuse_spawn
from lightning_trainingkit.tuning.trial_copies import copy_data, copy_module

__all__ = ["Data", "Trial", "stop"]

Data = Any
"""A DataModule, a train loader or a collection of them, or None for the module's own ``train_dataloader``."""

_OWN = {
    "callbacks": "A trial runs without callbacks.",
    "logger": "A trial logs nothing.",
    "fast_dev_run": "A trial is short anyway.",
    "max_time": "A trial ends by itself.",
    "enable_checkpointing": "A trial saves nothing.",
}
_EPOCHS = 10_000  # a trial ends when its callback says so


class Trial:
    """A short training of a copy, in a Trainer of its own.

    The module, its data, its optimizers and all random states (torch, numpy, Python) are left as they were. Each run
    starts from the same weights, with the same batches and the same random numbers. A run has no callbacks of the
    user, no logger, no validation and no checkpoints. Learning-rate schedules are made, but never stepped.

    Args:
        module: The module.
        data: A DataModule, a train loader, or None for the module's own loader.
        trainer_options: Arguments of Lightning's Trainer, such as ``precision``. A function makes them for each run, if
            an argument is an object for one Trainer alone, such as a strategy.

    Raises:
        TypeError: If the module or the data cannot be copied.
        ValueError: If an option has no place in a trial.
    """

    def __init__(
        self,
        module: L.LightningModule,
        data: Data,
        trainer_options: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._module, self._data = module, data
        options = dict(trainer_options or {}) if not callable(trainer_options) else {}
        self._options = trainer_options if callable(trainer_options) else lambda: options
        for name, why in _OWN.items():
            if name in options:
                raise ValueError(f"`trainer_options` must not hold {name}, got {options[name]!r}. {why}")

    def run(
        self,
        callback: L.Callback | list[L.Callback],
        prepare: Callable[[L.LightningModule, Data], Data] | None = None,
    ) -> L.LightningModule:
        """Train a copy until the callback calls ``stop``, and return the copy.

        Args:
            callback: Watches and steers the training; a callback or a list of them.
            prepare: Gets the copy of the module and the copy of the data, changes the first, and returns the data of
                the training.
        """
        with (
            isolate_rng(),
            _quiet(),
            torch.compiler.set_stance("force_eager"),
            TemporaryDirectory(prefix="trial-", ignore_cleanup_errors=True) as folder,
        ):
            module, data = copy_module(self._module), copy_data(self._data)
            source = module if data is None else data
            if isinstance(source, L.LightningModule | L.LightningDataModule) and not is_overridden(
                "train_dataloader", source
            ):
                raise ValueError(
                    f"`data` must give training batches, got {type(data).__name__} without a train loader. Give a "
                    "DataLoader, or write `train_dataloader`."
                )
            if prepare is not None:
                data = prepare(module, data)
            trainer = L.Trainer(
                **{
                    "max_epochs": _EPOCHS,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "num_sanity_val_steps": 0,
                    "limit_val_batches": 0,
                    "default_root_dir": folder,
                    **self._options(),
                    "logger": [_NoLogger(folder)],
                    "enable_checkpointing": False,
                    "callbacks": [_NoSchedules(), *(callback if isinstance(callback, list) else [callback])],
                }
            )
            refuse_spawn(trainer)
            trainer.fit(module, data)
        return module


def stop(trainer: L.Trainer) -> None:
    """End a trial after this batch, on all ranks: call it on each of them."""
    trainer.should_stop = True


class _NoLogger(DummyLogger):
    """Logs nothing. Files that the module's own hooks write beside their log go into a temporary folder."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    @property
    def save_dir(self) -> str:
        """The temporary folder."""
        return self._folder

    log_dir = save_dir


class _NoSchedules(L.Callback):
    """Keep learning-rate schedules from stepping, and their length, the planned steps, from ending a trial."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace each schedule by one that does nothing, and that Lightning never steps."""
        trainer.fit_loop.max_epochs = _EPOCHS
        trainer.fit_loop.epoch_loop.max_steps = -1
        for config in trainer.strategy.lr_scheduler_configs:
            config.interval = "never"
            optimizer = config.scheduler.optimizer
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            quiet: Any = Nothing(get_last_lr=partial(list, rates), last_epoch=0, optimizer=optimizer)
            config.scheduler = quiet


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Lightning says about the Trainer of a trial. Warnings of the module itself are shown."""
    logger = logging.getLogger(L.__name__)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers",
                "Found .* in eval mode at the start of training",  # step 2 judges it
                "The number of training batches .* is smaller than the logging interval",
                ".*LeafSpec.* is deprecated",
                ".*`training_step` returned `None`",
                "You defined a `validation_step` but have no `val_dataloader`",
                ".*passed in a `val_dataloader` but have no `validation_step`",
                ".*across ranks is zero. Please make sure this was your intention",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)
