"""Options of a Trainer for a step that needs one device alone."""

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["on_one_device"]

_LEFT_OUT = {"strategy", "limit_train_batches", "overfit_batches", "min_epochs", "min_steps", "barebones"}


def on_one_device(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options for the first of the given devices, without the strategy for several.

    Options that change the length of an epoch or of the training are left out too: these steps count batches.

    Args:
        options: Arguments of Lightning's Trainer.

    Raises:
        ValueError: In a process group of several processes.

    Example:
        >>> on_one_device({"accelerator": "gpu", "devices": [2, 3], "strategy": "ddp"})
        {'accelerator': 'gpu', 'devices': [2], 'num_nodes': 1}
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise ValueError(
                f"The step must run in one process, got {processes}. Run it before the distributed training."
            )
    chosen = dict(options or {})
    devices = chosen.get("devices")
    several = isinstance(devices, list | tuple)
    chosen |= {"devices": list(devices)[:1] if several and devices else 1, "num_nodes": 1}
    return {name: value for name, value in chosen.items() if name not in _LEFT_OUT}
