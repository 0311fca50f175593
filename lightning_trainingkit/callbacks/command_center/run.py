"""A W&B run that hides secrets in all text and ignores TensorBoard's calls."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.wandb_config import Config
from wandb.sdk.wandb_summary import Summary

from lightning_trainingkit._lightning import rank_zero_info
from lightning_trainingkit.dashboards.secret import hide, hide_settings

__all__ = ["adopt", "say_ignored", "start"]

# Arguments that W&B reads from the environment where `wandb.init` does not get them.
_VARIABLES = {
    "name": "WANDB_NAME",
    "notes": "WANDB_NOTES",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "project": "WANDB_PROJECT",
    "tags": "WANDB_TAGS",
}


def start(**init: Any) -> wandb.Run:
    """Open a run by ``wandb.init(**init)``, with secrets hidden in its texts, its config and the command line.

    W&B also keeps the program's output and the files that a user saves; these are not searched.
    """
    for name, variable in _VARIABLES.items():
        text = os.environ.get(variable, "")
        if init.get(name) is None and hide(text) != text:
            init[name] = text.split(",") if name == "tags" else text
        if init.get(name) is not None:
            init[name] = _hidden(init[name])
    init["config"] = _hidden_settings(init.get("config"))
    init["settings"] = _settings(init.get("settings"), [str(init.get("dir") or ""), str(Path.cwd()), *sys.argv])
    run = wandb.init(**init)
    adopt(run)
    return run


def adopt(run: wandb.Run) -> None:
    """Make ``run`` hide secrets in everything that is set or logged later."""
    if isinstance(run, _WithoutTensorBoard):
        return
    if run.disabled:  # a disabled run has another class, and keeps nothing
        run.__class__ = type("_DisabledRun", (_WithoutTensorBoard, type(run)), {})
        return
    run.__class__ = _Run
    object.__setattr__(run.config, "__class__", _Config)  # whose own `__setattr__` sets a setting
    object.__setattr__(run.summary, "__class__", _Summary)


def _settings(settings: Any, recorded: list[str]) -> Any:
    """Keep W&B from recording folders and the command line if they hold a secret."""
    if hide_settings({"recorded": recorded})["recorded"] == recorded:
        return settings
    rank_zero_info(
        "The command line or the name of a folder holds a secret: W&B records neither, nor the machine and the commit."
    )
    without = {"x_disable_meta": True}
    return (
        settings.model_copy(update=without) if isinstance(settings, wandb.Settings) else {**(settings or {}), **without}
    )


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return hide(value)
    return [_hidden(each) for each in value] if isinstance(value, list | tuple) else value


def _hidden_values(values: Any) -> Any:
    """Hide secrets in the names and texts of logged values. Numbers and media stay."""
    if not isinstance(values, Mapping):
        return values  # W&B raises for it
    return {
        _hidden(name): hide_settings(value) if isinstance(value, Mapping) else _hidden(value)
        for name, value in values.items()
    }


def _hidden_settings(settings: Any) -> Any:
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    return hide_settings(settings) if isinstance(settings, Mapping) else settings


def _hiding(found: Any) -> Any:
    """Wrap a property of W&B's run: its setter hides secrets first."""
    return property(found.fget, lambda run, value: found.fset(run, _hidden(value)))


class _WithoutTensorBoard:
    def __getattr__(self, name: str) -> Callable[..., None]:
        # A module that loops over all loggers for TensorBoard's sake calls these on a W&B run too.
        if name.startswith("add_") or name in ("flush", "close"):
            say_ignored()
            return _ignore
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _Run(_WithoutTensorBoard, wandb.Run):
    name = _hiding(wandb.Run.name)
    notes = _hiding(wandb.Run.notes)
    tags = _hiding(wandb.Run.tags)

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        super().log(_hidden_values(data), step=step, commit=commit)

    def define_metric(self, name: str, *args: Any, **options: Any) -> Any:
        # W&B allows an asterisk only at the end of a name. A name that holds a secret loses its rule.
        return super().define_metric(hide(name).replace("***", ""), *args, **options)


class _Config(Config):
    # Hidden before it is stored: W&B sends the whole config again whenever the run's name or tags change.
    def __setitem__(self, key: str, val: Any) -> None:
        ((key, val),) = hide_settings({key: val}).items()
        super().__setitem__(key, val)  # type: ignore[no-untyped-call]

    __setattr__ = __setitem__

    def update(self, d: Any, allow_val_change: bool | None = None) -> None:
        super().update(_hidden_settings(d), allow_val_change)  # type: ignore[no-untyped-call]

    def setdefaults(self, d: Any) -> None:
        super().setdefaults(_hidden_settings(d))  # type: ignore[no-untyped-call]


class _Summary(Summary):
    def update(self, d: dict[str, Any]) -> None:
        super().update(_hidden_values(d))


def _ignore(*args: Any, **kwargs: Any) -> None:
    pass


@cache
def say_ignored() -> None:
    """Say once that TensorBoard's methods do nothing on a W&B run."""
    rank_zero_info(
        "A W&B run has none of TensorBoard's methods (add_image, add_scalar, ...): such calls do nothing there. For "
        "images in W&B call WandbLogger's log_image."
    )
