"""Fashion-MNIST from the four idx files."""

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from lightning_trainingkit.data._base import ImageDataModule, check_path
from lightning_trainingkit.data._memory import serve_from_memory
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation

__all__ = ["FashionMNISTDataModule"]

_SHARED = "/usr/local/share:/usr/share"
_NAME = "datasets/fashion-mnist"  # as Debian's package has it


class FashionMNISTDataModule(ImageDataModule):
    """70,000 grey images of 28 x 28 pixels, ten kinds of clothing. 10,000 images are the test part.

    The validation part is split from the training images by class. Images are preprocessed, by default by mean and
    standard deviation of the training part.

    Args:
        data_dir: A folder with the four idx files, plain or ``.gz``, or the root of torchvision's tree
            (``FashionMNIST/raw`` in it). None searches ``data`` and ``datasets/fashion-mnist`` in ``$XDG_DATA_DIRS``
            (by default ``/usr/local/share`` and ``/usr/share``).
        batch_size: Images per batch and rank.
        val_fraction: Share of the 60,000 training images for validation.
        seed: Fixes the split.
        num_workers: Processes that load; 0 is fastest for images in memory.
        download: Whether torchvision may download 30 MB into ``data_dir`` (None: ``data``) if nothing is found.
        preprocess: ``none``, ``mean_image``, ``channel_mean``, ``channel`` (mean and standard deviation), ``pca``,
            ``pca_whitening`` or ``zca``, fitted on the training part. README.md in this folder has the formulas.
        augment: How training images are changed at random: a policy by name, an ``Augmentation``, or its ranges by
            name as a dict. None: not at all. README.md in this folder lists the policies.

    Raises:
        FileNotFoundError: If no folder holds the files and ``download`` is False.
        ValueError: If an argument is outside its range or a file is damaged.

    Example:
        >>> data = FashionMNISTDataModule(data_dir="data", batch_size=256, download=True)
        >>> data.num_classes, data.image_shape
        (10, (1, 28, 28))

    References:
        Xiao et al., "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017,
        arXiv:1708.07747.
    """

    num_classes = 10
    image_shape = (1, 28, 28)

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
        download: bool = False,
        preprocess: str = "channel",
        augment: str | Augmentation | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, val_fraction, seed, num_workers, preprocess)
        data_dir = None if data_dir is None else check_path("data_dir", data_dir, "Give a folder, or leave it out.")
        augment = self._set_augmentation(augment, self.image_shape)
        self.save_hyperparameters()
        self.data_dir = data_dir
        self.download = _check.flag("download", download)

    def prepare_data(self) -> None:
        """Download the files if ``download`` is True and no folder holds them."""
        if self.download and self._find() is None:
            torchvision.datasets.FashionMNIST(self.data_dir or "data", download=True)

    def _load(self) -> None:
        files = self._find()
        if files is None:
            places = ", ".join(map(str, self._folders()))
            raise FileNotFoundError(
                f"`data_dir` must hold the four files of Fashion-MNIST, got nothing in {places}. "
                f"Set download=True, or install Debian's package dataset-fashion-mnist."
            )
        images, labels = _read_part(files[0], files[1])
        test_images, test_labels = _read_part(files[2], files[3])
        test = torch.arange(len(labels), len(labels) + len(test_labels))
        serve_from_memory(
            self, torch.cat([images, test_images]), torch.cat([labels, test_labels]), test, files[0].parent
        )

    def _folders(self) -> list[Path]:
        shared = (os.environ.get("XDG_DATA_DIRS") or _SHARED).split(os.pathsep)
        roots = [Path(self.data_dir)] if self.data_dir else [Path("data"), *(Path(each) / _NAME for each in shared)]
        return [folder for root in roots for folder in (root / "FashionMNIST" / "raw", root)]

    def _find(self) -> list[Path] | None:
        names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for folder in self._folders():
            found = [path for name in names for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
            by_name = {path.name.removesuffix(".gz"): path for path in reversed(found)}
            if len(by_name) == len(names):
                return [by_name[name] for name in names]
        return None


def _read_part(image_file: Path, label_file: Path) -> tuple[Tensor, Tensor]:
    images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
    if len(images) != len(labels):
        rule = f"one label per image of {image_file.name} ({len(images)})"
        raise ValueError(f"`{label_file}` must hold {rule}, got {len(labels)}. Get the data set again.")
    return images[:, None], labels.long()


def _read_idx(path: Path, ndim: int) -> Tensor:
    """Read bytes from an idx file; torchvision's reader takes no ``.gz``."""
    try:
        data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        *magic, dims = struct.unpack_from(">BBBB", data)
        shape = struct.unpack_from(f">{ndim}I", data, 4)
        if magic != [0, 0, 8] or dims != ndim:
            raise ValueError(f"a header of {bytes(data[:4])!r}")
        start = 4 + 4 * ndim
        values = torch.frombuffer(data, dtype=torch.uint8, offset=start) if len(data) > start else torch.empty(0)
        return values.view(shape).to(torch.uint8)
    except (OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        rule = f"a readable idx file of bytes in {ndim} dimensions"
        raise ValueError(f"`{path}` must be {rule}, got {error}. Get the data set again.") from error
