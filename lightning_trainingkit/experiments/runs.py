"""Run folders: what every recipe and benchmark shares, from its arguments to its table and ``results.json``."""

import argparse
import atexit
import json
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import distributed

from lightning_trainingkit._files import write_json
from lightning_trainingkit._version import versions
from lightning_trainingkit.data.cifar10 import CIFAR10DataModule
from lightning_trainingkit.data.digits import DigitsDataModule
from lightning_trainingkit.data.fashion_mnist import FashionMNISTDataModule
from lightning_trainingkit.data.image_folder import ImageFolderDataModule

__all__ = [
    "arguments",
    "data_module",
    "finished",
    "new_trainer",
    "newest_checkpoint",
    "open_folder",
    "precision",
    "print_table",
    "quiet",
    "write_results",
]

_FOLDER = "TRAININGKIT_FOLDER"  # tells the processes that Lightning starts for further ranks


def arguments(name: str, description: str | None, *, trains: bool = True) -> argparse.ArgumentParser:
    """Parser with the options that all recipes share.

    Args:
        name: Name of the recipe, which names its folder.
        description: The recipe's docstring.
        trains: Whether to add the options of the data and the Trainer (a benchmark may bring its own).
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, help=f"folder for the results (default: runs/{name}, or the next free one)"
    )
    if not trains:
        return parser
    parser.add_argument(
        "--resume", action="store_true", help="go on in --output (default: the newest folder of this recipe)"
    )
    parser.add_argument(
        "--data", default="digits", help="digits, fashion-mnist, cifar10 or a folder of images (%(default)s)"
    )
    parser.add_argument("--data-dir", help="where the data set is")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (%(default)s)")
    parser.add_argument("--accelerator", default="auto", help="as in Lightning's Trainer (%(default)s)")
    parser.add_argument("--devices", default="1", help="as in Lightning's Trainer (%(default)s)")
    parser.add_argument("--strategy", default="auto", help="as in Lightning's Trainer (%(default)s)")
    parser.add_argument(
        "--precision", help="as in Lightning's Trainer (default: bf16-mixed where it is fast, 32-true for digits)"
    )
    parser.add_argument(
        "--wandb", choices=["offline", "online", "disabled"], default="offline", help="Weights & Biases (%(default)s)"
    )
    return parser


def open_folder(name: str, output: Path | None = None, *, resume: bool = False) -> Path:
    """Folder of this run: new, or that of an earlier run to go on with. All ranks get the same one.

    Args:
        name: Name of the recipe.
        output: The folder that was asked for; by default ``runs/NAME``, or ``runs/NAME-2``, ... where that stands.
        resume: Go on in ``output``; by default in the newest folder of this recipe.

    Raises:
        FileExistsError: If ``output`` is not empty and is not to be resumed.
        FileNotFoundError: If there is nothing to resume.
    """
    atexit.register(_end_group)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _FOLDER not in os.environ and output is None:
        raise ValueError("`--output` must be given where each rank is started by itself (torchrun, SLURM), got none.")
    if _rank() > 0:
        return Path(os.environ.get(_FOLDER) or output or Path("runs") / name)
    if resume:
        folder = output or max(_earlier(name), key=lambda path: path.stat().st_mtime, default=None)
        if folder is None or not folder.is_dir():
            raise FileNotFoundError(
                f"`--resume` must find a run, got {folder or f'no runs/{name}'}. Start one without it."
            )
    elif output is not None:
        folder = output
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"`--output` must be new or empty, got {folder}. Add --resume to go on in it.")
    else:
        taken = {path.name for path in _earlier(name)}
        number = 2
        folder = Path("runs") / name
        while folder.name in taken:
            folder, number = Path("runs") / f"{name}-{number}", number + 1
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[_FOLDER] = str(folder)
    return folder


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in ``folder`` that was saved last in training, or None; what a kill cut off has another name."""

    def age(path: Path) -> tuple[int, bool]:
        # Files of weights alone can't be resumed from, and have no step.
        step: int = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("global_step", -1)
        return step, path.name == "last.ckpt"  # of two from one step it is the later one, and knows of the other

    newest = max(folder.glob("*.ckpt"), key=age, default=None)
    return None if newest is None or age(newest)[0] < 0 else newest


def data_module(
    data: str, data_dir: str | None = None, *, batch_size: int, seed: int = 0
) -> DigitsDataModule | FashionMNISTDataModule | CIFAR10DataModule | ImageFolderDataModule:
    """Data for ``--data`` and ``--data-dir``.

    Args:
        data: ``digits``, ``fashion-mnist``, ``cifar10``, or a folder of images.
        data_dir: Where a data set by name is kept.
        batch_size: Images in a batch of one rank.
        seed: Of the split.

    Raises:
        ValueError: If ``data`` is neither a known name nor a folder.
    """
    if data == "digits":
        return DigitsDataModule(batch_size=batch_size, seed=seed)
    if data == "fashion-mnist":
        return FashionMNISTDataModule(data_dir, batch_size=batch_size, seed=seed)
    if data == "cifar10":
        return CIFAR10DataModule(data_dir or "data", batch_size=batch_size, seed=seed)
    if Path(data).is_dir():
        return ImageFolderDataModule(data, batch_size=batch_size, seed=seed)
    raise ValueError(
        f"`--data` must be digits, fashion-mnist, cifar10 or a folder, got {data!r}, which is none of them."
    )


def precision(data: str, asked: str | None = None, accelerator: str = "auto") -> str:
    """What ``--precision`` is if nothing was asked: bf16 where it is faster, so not for images as small as the digits.

    A processor without 512-bit vectors emulates bf16: a training step on Fashion-MNIST took 10 times as long as in
    float32 on one (AVX2, torch 2.15).
    """
    if asked:
        return asked
    if accelerator != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bf16-mixed" if fast and data != "digits" else "32-true"


def new_trainer(args: argparse.Namespace, folder: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """A Trainer as it could be yours, by the shared options; what a recipe seldom asks for is off.

    Args:
        args: Of ``arguments``.
        folder: Where it writes.
        callbacks: In this order.
        options: Of Lightning's Trainer.
    """
    return L.Trainer(
        accelerator=args.accelerator,
        devices=args.devices,
        strategy=args.strategy,
        precision=cast(Any, precision(args.data, args.precision, args.accelerator)),
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,  # CommandCenter adds W&B's
        enable_model_summary=False,
        **{"enable_checkpointing": False, "enable_progress_bar": False, "log_every_n_steps": 10, **options},
    )


def write_results(
    folder: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    seconds: float,
) -> None:
    """Write ``results.json``, on rank 0, whole or not at all."""
    if _rank() > 0:
        return
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in config.items()}
    results = _finite({"config": settings, "metrics": dict(metrics), "rows": [dict(row) for row in rows]})
    write_json(folder / "results.json", results | {"seconds": round(seconds, 2), "versions": versions()})


def print_table(title: str, rows: Sequence[Mapping[str, Any]], *notes: str) -> None:
    """Print rows as a table, a column for each key, and notes below it, on rank 0."""
    if _rank() > 0:
        return
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)


def finished(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics of one training of several, if an earlier run of the recipe has written its results.

    Args:
        folder: Of that training; ``begun/results.json`` in it tells the settings of one that was killed.
        settings: The options that it depends on.

    Raises:
        ValueError: If it was trained, or begun, with other settings.
    """
    found = None
    for file in (folder / "begun" / "results.json", folder / "results.json"):
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if found is not None and found["config"] != dict(settings):
            raise ValueError(
                f"`--output` must hold trainings with the options of now, got {found['config']}. Take a new one."
            )
    return None if found is None else dict(found["metrics"])


def quiet() -> None:
    """Keep Lightning's advice off the screen, that on workers too: most of the recipes' data is in memory."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def _end_group() -> None:
    """Left to the end of the interpreter, which Lightning does, gloo's threads abort a run at times that is done."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: a loss that diverged becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _earlier(name: str) -> list[Path]:
    numbered = [path for path in Path("runs").glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()]
    return [path for path in [Path("runs") / name, *numbered] if path.is_dir() and any(path.iterdir())]


def _rank() -> int:
    return int(getattr(rank_zero_only, "rank", 0))
