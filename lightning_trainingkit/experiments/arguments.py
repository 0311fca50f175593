"""The options that recipes and benchmarks share, and the data that the options choose."""

import argparse
from collections.abc import Callable
from pathlib import Path

from lightning_trainingkit.data.cifar10 import CIFAR10DataModule
from lightning_trainingkit.data.digits import DigitsDataModule
from lightning_trainingkit.data.fashion_mnist import FashionMNISTDataModule
from lightning_trainingkit.data.image_folder import ImageFolderDataModule

__all__ = ["argument_parser", "at_least", "data_module"]


def argument_parser(name: str, description: str | None, *, trains: bool = True) -> argparse.ArgumentParser:
    """Make a parser with the options that all recipes share.

    Args:
        name: Name of the recipe, and of its folder.
        description: The recipe's docstring.
        trains: Whether to add the options of the data and the Trainer. A benchmark may have its own.
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


def at_least(least: int) -> Callable[[str], int]:
    """Make a ``type`` for ``add_argument``: an integer of at least ``least``. Errors name the option."""

    def integer(given: str) -> int:
        if (value := int(given)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return integer


def data_module(
    data: str, data_dir: str | None = None, *, batch_size: int, seed: int = 0
) -> DigitsDataModule | FashionMNISTDataModule | CIFAR10DataModule | ImageFolderDataModule:
    """Make the DataModule for ``--data`` and ``--data-dir``.

    Args:
        data: ``digits``, ``fashion-mnist``, ``cifar10``, or a folder of images.
        data_dir: Folder of a data set by name.
        batch_size: Images per batch and rank.
        seed: Fixes the split.

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
