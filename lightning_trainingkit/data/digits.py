"""Handwritten digits from scikit-learn."""

from typing import Any

import torch

from lightning_trainingkit.data._base import ImageDataModule, split
from lightning_trainingkit.data._memory import serve_from_memory
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation

__all__ = ["DigitsDataModule"]


class DigitsDataModule(ImageDataModule):
    """1,797 real handwritten digits of 8 x 8 pixels, installed with scikit-learn: nothing to download.

    The test part is split off first, then the validation part from the remaining images, both by class. Images are
    divided by 16 and preprocessed, by default by mean and standard deviation of the training part.

    Args:
        batch_size: Images per batch and rank.
        val_fraction: Share of the images outside the test part, for validation.
        test_fraction: Share of all images, for the test.
        seed: Fixes both splits.
        num_workers: Processes that load; 0 is fastest for images in memory.
        preprocess: ``none``, ``mean_image``, ``channel_mean``, ``channel`` (mean and standard deviation), ``pca``,
            ``pca_whitening`` or ``zca``, fitted on the training part. README.md in this folder has the formulas.
        augment: How training images are changed at random: a policy by name, an ``Augmentation``, or its ranges by
            name as a dict. None: not at all. README.md in this folder lists the policies.

    Raises:
        ValueError: If an argument is outside its range.
        ImportError: If scikit-learn is not installed.

    Example:
        >>> data = DigitsDataModule(batch_size=32)
        >>> data.setup()
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, y.shape
        (torch.Size([32, 1, 8, 8]), torch.Size([32]))

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """

    num_classes = 10
    image_shape = (1, 8, 8)

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.15,
        test_fraction: float = 0.2,
        seed: int = 0,
        num_workers: int = 0,
        preprocess: str = "channel",
        augment: str | Augmentation | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, val_fraction, seed, num_workers, preprocess)
        augment = self._set_augmentation(augment, self.image_shape)
        self.save_hyperparameters()
        self.test_fraction = _check.share("test_fraction", test_fraction, "Try 0.1.")

    def _load(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            message = "`DigitsDataModule` needs scikit-learn. Run: pip install 'lightning-trainingkit[recipes]'."
            raise ImportError(message) from error
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
        targets = torch.tensor(digits.target, dtype=torch.long)
        _, test = split(targets, "test_fraction", self.test_fraction, self.seed)
        serve_from_memory(self, images, targets, test, "scikit-learn's digits")
