"""The settings of a training as plain data: trainer, optimizers, callbacks, versions."""

import os
from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from lightning_trainingkit._lightning import L
from lightning_trainingkit._version import versions

__all__ = ["settings_of"]

# The run itself has a name, a group, a job type and tags. The page says nothing about the training.
_OF_THE_RUN = {"CommandCenter": {"group", "job_type", "tags", "name", "page"}}
_TRAINER = (
    *("max_epochs", "min_epochs", "max_steps", "precision", "world_size", "num_nodes"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch"),
)


def settings_of(trainer: L.Trainer) -> dict[str, Any]:
    """Describe the settings of a Trainer, without the hyperparameters that Lightning logs.

    The names of this run, and folders that Lightning named after it, are left out: they differ between any two runs.

    Returns:
        Values for JSON under ``model``, ``trainer``, ``optimizers``, ``schedulers``, ``callbacks`` and ``versions``.
    """
    return {
        "model": type(trainer.lightning_module).__name__,
        "trainer": _trainer(trainer),
        "optimizers": [_optimizer(optimizer) for optimizer in trainer.optimizers],
        "schedulers": [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs],
        "callbacks": _callbacks(trainer),
        "versions": versions(),
    }


def _trainer(trainer: L.Trainer) -> dict[str, Any]:
    seed = os.environ.get("PL_GLOBAL_SEED")  # where `lightning.seed_everything` leaves it
    loader = trainer.train_dataloader
    # A loader with a batch sampler has no batch size.
    batch_size = getattr(loader, "batch_size", None) or getattr(
        getattr(loader, "batch_sampler", None), "batch_size", None
    )
    return _plain(
        {
            **{name: getattr(trainer, name) for name in _TRAINER},
            "strategy": type(trainer.strategy).__name__,
            "accelerator": type(trainer.accelerator).__name__,
            "batch_size": batch_size,
            "seed": seed and int(seed),
        }
    )


def _optimizer(optimizer: Optimizer) -> dict[str, Any]:
    def of_groups(name: str) -> Any:
        # A scheduler keeps the rate of the user in `initial_lr`, and has changed `lr` already.
        values = [group.get(f"initial_{name}", group.get(name)) for group in optimizer.param_groups]
        return values[0] if all(value == values[0] for value in values) else values

    return {"name": type(optimizer).__name__, **_plain({name: of_groups(name) for name in optimizer.defaults})}


def _callbacks(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    seen: Counter[str] = Counter()
    described = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = type(callback).__name__
        seen[name] += 1
        arguments = {
            argument: getattr(callback, argument)
            for argument in signature(type(callback)).parameters
            if hasattr(callback, argument) and argument not in _OF_THE_RUN.get(name, ())
        }
        key = name if seen[name] == 1 else f"{name}-{seen[name]}"
        described[key] = _plain({each: value for each, value in arguments.items() if not _repeats_run(value, trainer)})
    return described


def _repeats_run(value: Any, trainer: L.Trainer) -> bool:
    """Whether a value is a folder that Lightning named after the run: by the version of the first logger."""
    if not isinstance(value, str | Path) or not Path(value).is_absolute() or not trainer.loggers:
        return False
    version = trainer.loggers[0].version
    return (f"version_{version}" if isinstance(version, int) else str(version)) in Path(value).parts


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out values that JSON cannot hold. A tensor without dimensions becomes a number."""
    return {name: _value(value) for name, value in values.items() if _is_plain(_value(value))}


def _value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
