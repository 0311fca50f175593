"""A W&B run that hides secrets in all text and ignores TensorBoard's calls."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import wandb
from lightning.pytorch.utilities import rank_zero_info

from lightning_trainingkit.dashboards.secret import hide, hide_settings

__all__ = ["adopt", "start"]

# What W&B reads from the environment where `wandb.init` is not given it.
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

    W&B keeps more than this function sees: what the program prints, and the files that a user saves.
    """
    for name, variable in _VARIABLES.items():
        text = os.environ.get(variable, "")
        if init.get(name) is None and hide(text) != text:
            init[name] = text.split(",") if name == "tags" else text
        if init.get(name) is not None:
            init[name] = _hidden(init[name])
    config = init.get("config")
    if isinstance(config, Mapping | argparse.Namespace):
        init["config"] = hide_settings(vars(config) if isinstance(config, argparse.Namespace) else config)
    arguments = sys.argv
    # W&B reads the command line itself, and no setting of W&B changes what it keeps of it.
    sys.argv = hide_settings({"argv": arguments})["argv"]
    try:
        run = wandb.init(**init)
    finally:
        sys.argv = arguments
    adopt(run)
    return run


def adopt(run: wandb.Run) -> None:
    """Make ``run`` hide secrets from now on."""
    run.__class__ = _Run
    if not run.disabled:
        config, summary = vars(run.config), vars(run.summary)
        config["_callback"] = _config_sender(config["_callback"])
        update = run.summary.update
        summary["update"] = lambda values: update(_hidden_values(values))


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return hide(value)
    return [_hidden(each) for each in value] if isinstance(value, list | tuple) else value


def _hidden_values(values: Any) -> Any:
    """What is logged: names and texts are looked at, numbers and media stay."""
    if not isinstance(values, Mapping):
        return values  # W&B says what is wrong with it
    return {
        _hidden(name): hide_settings(value) if isinstance(value, Mapping) else _hidden(value)
        for name, value in values.items()
    }


def _config_sender(send: Callable[..., None]) -> Callable[..., None]:
    """Every change of the config goes through W&B's one function ``send``."""

    def send_hidden(key: Any = None, val: Any = None, data: Mapping[str, Any] | None = None) -> None:
        if isinstance(key, str):
            ((key, val),) = hide_settings({key: val}).items()
        if data is not None:
            data = hide_settings(data)
        send(key=key, val=val, data=data)

    return send_hidden


def _hiding(found: Any) -> Any:
    """A property of W&B's run, whose setter hides secrets first."""
    return property(found.fget, lambda run, value: found.fset(run, _hidden(value)))


class _Run(wandb.Run):
    name = _hiding(wandb.Run.name)
    notes = _hiding(wandb.Run.notes)
    tags = _hiding(wandb.Run.tags)

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        super().log(_hidden_values(data), step=step, commit=commit)

    def define_metric(self, name: str, *args: Any, **options: Any) -> Any:
        # W&B allows an asterisk only at the end of a name. A name that holds a secret loses its rule.
        return super().define_metric(hide(name).replace("***", ""), *args, **options)

    def __getattr__(self, name: str) -> Callable[..., None]:
        # A module that loops over all loggers for TensorBoard's sake calls these on a W&B run too.
        if name.startswith("add_") or name in ("flush", "close"):
            _say_ignored()
            return _ignore
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _ignore(*args: Any, **kwargs: Any) -> None:
    pass


@cache
def _say_ignored() -> None:
    rank_zero_info(
        "A W&B run has none of TensorBoard's methods (add_image, add_scalar, ...): such calls do nothing there. For "
        "images in W&B call WandbLogger's log_image."
    )
