"""What a study must have been searched with, kept in the study, so that no worker joins another search by its name."""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_trainingkit.tuning.searches.cli_config import is_plain, plain
from lightning_trainingkit.tuning.trials.agreement import keep_or_refuse
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.study import Study

__all__ = ["SETTINGS", "agree", "fixed_values", "training_of"]

SETTINGS = "trainingkit_search"  # the study's attribute
_FREE = ("sections",)  # may differ between workers
_SCALARS = (bool, int, float, str)


def fixed_values(source: Source, searched: Any = ()) -> dict[str, Any]:
    """The arguments that are not searched, as JSON holds them: by these a study is known again."""
    return {name: _described(each) for name, each in source.given.items() if name not in searched}


def _described(value: Any) -> Any:
    """A plain value itself, the name of a class or a function; of another object its class and its plain attributes."""
    if is_plain(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(name): _described(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    if isinstance(value, partial):
        return [_described(value.func), _described(value.args), _described(value.keywords)]
    if isinstance(value, Path | Enum | torch.dtype | torch.device):
        return str(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{named.__module__}.{named.__qualname__}"
    if named is value:
        return name
    own = {key: each for key, each in getattr(value, "__dict__", {}).items() if isinstance(each, _SCALARS)}
    layers = {"layers": repr(value)} if isinstance(value, nn.Module) else {}
    return {"class": name, **layers, **{key: each for key, each in own.items() if not key.startswith("_")}}


def training_of(
    source: Source, trainer_options: Mapping[str, Any] | None, callbacks: Sequence[Any], searched: Any = ()
) -> dict[str, Any]:
    """What all trainings of a study have in common, as JSON holds it. Of objects the names are kept.

    Args:
        source: Builds the module and the data.
        trainer_options: Arguments of Lightning's Trainer.
        callbacks: The user's callbacks.
        searched: Names of arguments that differ between the trainings.
    """
    options = trainer_options or {}
    return {
        "module": source.describe,
        "fixed": fixed_values(source, searched),
        "trainer_options": {name: plain(each) for name, each in options.items() if is_plain(each)},
        "trainer_objects": sorted(name for name, each in options.items() if not is_plain(each)),
        "callbacks": [type(each).__name__ for each in callbacks],
    }


def agree(study: Study, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings to a new study, or compare them with the stored ones.

    Returns:
        The stored settings.

    Raises:
        ValueError: If a setting differs.
    """
    return keep_or_refuse(study.optuna, SETTINGS, settings, free=_FREE)
