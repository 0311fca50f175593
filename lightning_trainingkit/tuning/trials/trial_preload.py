"""Imported by the server that forks trials: it imports what a trial uses. Nothing is built, and no GPU is touched."""

import json
import os
import sys
from contextlib import suppress
from importlib import import_module

_OURS = (
    *("torch", "torchvision", "torchmetrics", "omegaconf", "lightning_trainingkit._lightning"),
    *(
        f"lightning_trainingkit.tuning.{name}"
        for name in ("trial_process", "trial_checkpoint", "trial_record", "source")
    ),
    *(f"lightning_trainingkit.callbacks.{name}" for name in ("command_center.command_center", "epoch_seed")),
    "lightning_trainingkit.callbacks.command_center.run",
    "wandb.sdk.launch",  # W&B imports it in each process that opens a run, for 1 to 2 seconds
)

if "TRAININGKIT_PRELOAD" in os.environ:
    _wanted = json.loads(os.environ.pop("TRAININGKIT_PRELOAD"))
    sys.path[:] = _wanted["path"]
    for _name in (*_OURS, *_wanted["modules"]):
        with suppress(Exception):  # the trial says what is wrong
            import_module(_name)
