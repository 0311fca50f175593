"""The Trainer that recipes use."""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch

from lightning_trainingkit._lightning import L

__all__ = ["default_precision", "new_trainer", "quiet"]


def default_precision(data: str, asked: str | None = None, accelerator: str = "auto") -> str:
    """Return the given precision, or by default bf16 where it is faster: not for images as small as digits.

    A processor without 512-bit vectors emulates bf16. On such a processor (AVX2, torch 2.15), a training step on
    Fashion-MNIST took 10 times as long as in float32.
    """
    if asked:
        return asked
    if accelerator != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bf16-mixed" if fast and data != "digits" else "32-true"


def new_trainer(args: argparse.Namespace, folder: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """Make a Lightning Trainer from the shared options, without logger, model summary, progress bar and checkpoints.

    Args:
        args: Options of ``argument_parser``.
        folder: Folder of the run, where the Trainer writes.
        callbacks: The callbacks, in this order.
        options: More arguments of Lightning's Trainer.
    """
    return L.Trainer(
        accelerator=args.accelerator,
        devices=args.devices,
        strategy=args.strategy,
        precision=cast(Any, default_precision(args.data, args.precision, args.accelerator)),
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,  # CommandCenter adds W&B's
        enable_model_summary=False,
        **{"enable_checkpointing": False, "enable_progress_bar": False, "log_every_n_steps": 10, **options},
    )


def quiet() -> None:
    """Hide Lightning's advice. Its advice on data workers is wrong for data in memory."""
    logging.getLogger(L.__name__).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
