"""Print mean and standard deviation of a folder of images: ``python -m lightning_trainingkit.data.statistics DIR``."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_trainingkit.data.image_files import ImageReader, read_all
from lightning_trainingkit.data.image_tree import Skipped, find_parts, images_below
from lightning_trainingkit.functional.moments import Moments

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the training images of a folder, as ``ImageFolderDataModule`` reads them.

    Args:
        arguments: The command line; None takes that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lightning_trainingkit.data.statistics",
        description="Print mean and standard deviation of red, green and blue, from 0 to 1, over all pixels of a "
        "folder of images. Of a folder with parts (train, val, test) the training part is measured.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of images, with or without class folders")
    parser.add_argument(
        "--image-size",
        type=_positive,
        default=224,
        metavar="PIXELS",
        help="the shorter side is resized to it, and the centre is cut out (%(default)s)",
    )
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that decode images (%(default)s)"
    )
    args = parser.parse_args(arguments)
    try:
        folder = find_parts(args.folder)["train"]
        paths = images_below(folder, Skipped()) if folder.is_dir() else []
        if not paths:
            parser.error(f"DIR must hold images that Pillow decodes, got none in {folder}. Name another folder.")
        moments = _measure(paths, ImageReader(args.image_size), max(args.num_workers, 0))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    mean, std = ([round(value, 6) for value in each.tolist()] for each in (moments.mean, moments.variance.sqrt()))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{moments.images:,} images of {folder}, {args.image_size} x {args.image_size} pixels:")
    console.print(f"mean={mean}, std={std}")


def _measure(paths: list[str], reader: ImageReader, workers: int) -> Moments:
    moments = Moments("channel")
    loader: DataLoader[Any] = DataLoader(paths, batch_size=16, num_workers=workers, collate_fn=partial(_decode, reader))  # type: ignore[arg-type]
    found = (image for batch in loader for image in batch)
    progress = track(found, "Reading images", total=len(paths), console=Console(stderr=True), transient=True)
    for image in read_all(progress, _raised):
        moments.add(image[None])
    return moments


def _decode(reader: ImageReader, paths: list[str]) -> list[Tensor | ValueError]:
    """Decode files in a worker. An error travels as a value, so that all unreadable files can be named at the end."""
    found: list[Tensor | ValueError] = []
    for path in paths:
        try:
            found.append(reader.decode(path))
        except ValueError as error:
            found.append(ValueError(str(error)))
    return found


def _raised(found: Tensor | ValueError) -> Tensor:
    if isinstance(found, ValueError):
        raise found
    return found


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    main()
