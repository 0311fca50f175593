"""CIFAR-10 through torchvision."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from lightning_trainingkit.data._base import ImageDataModule, check_path
from lightning_trainingkit.data._memory import serve_from_memory
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation

__all__ = ["CIFAR10DataModule"]

_TREE = "cifar-10-batches-py"


class CIFAR10DataModule(ImageDataModule):
    """60,000 colour images of 32 x 32 pixels in ten classes. 10,000 images are the test part.

    The validation part is split from the training images by class. Images are preprocessed, by default by mean and
    standard deviation of the training part.

    Args:
        data_dir: The root of torchvision's tree (``cifar-10-batches-py`` in it), or that folder itself. None:
            ``data``.
        batch_size: Images per batch and rank.
        val_fraction: Share of the 50,000 training images for validation.
        seed: Fixes the split.
        num_workers: Processes that load; 0 is fastest for images in memory.
        download: Whether torchvision may download 170 MB into ``data_dir`` if it is not there.
        preprocess: ``none``, ``mean_image``, ``channel_mean``, ``channel`` (mean and standard deviation), ``pca``,
            ``pca_whitening`` or ``zca``, fitted on the training part. README.md in this folder has the formulas.
        augment: How training images are changed at random: a policy by name, an ``Augmentation``, or its ranges by
            name as a dict. None: not at all. README.md in this folder lists the policies.

    Raises:
        FileNotFoundError: If the folder is absent and ``download`` is False.
        ValueError: If an argument is outside its range or a file is damaged.

    Example:
        >>> data = CIFAR10DataModule(data_dir="data", download=True)
        >>> data.num_classes, data.image_shape
        (10, (3, 32, 32))

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    num_classes = 10
    image_shape = (3, 32, 32)

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
        """Download the data set if ``download`` is True and the folder is absent."""
        if self.download and not (self._root() / _TREE).is_dir():
            torchvision.datasets.CIFAR10(self._root(), download=True)

    def _load(self) -> None:
        folder = self._root() / _TREE
        if not folder.is_dir():
            raise FileNotFoundError(
                f"`data_dir` must hold CIFAR-10, got no folder {folder}. Unpack "
                f"{torchvision.datasets.CIFAR10.filename} there, or let CIFAR10DataModule(download=True) do so."
            )
        try:
            with warnings.catch_warnings():
                # NumPy 2.4.0 to 2.4.4 warn of how the pickles of 2009 call numpy.dtype (numpy #30786).
                warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
                train, test = (torchvision.datasets.CIFAR10(self._root(), train=train) for train in (True, False))
        except RuntimeError as error:  # torchvision compares checksums
            raise ValueError(
                f"`{folder}` must hold CIFAR-10 undamaged, got {error}. Remove it and get it again."
            ) from error
        images = torch.from_numpy(np.concatenate([train.data, test.data])).permute(0, 3, 1, 2).contiguous()
        targets = torch.tensor(train.targets + test.targets)
        serve_from_memory(self, images, targets, torch.arange(len(train.targets), len(targets)), folder)

    def _root(self) -> Path:
        root = Path(self.data_dir or "data")
        return root.parent if root.name == _TREE else root
