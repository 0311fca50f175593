"""Images that are held in memory and fetched a batch at a time."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit.data._base import ImageDataModule, Pair, check_labels, split
from lightning_trainingkit.data.worker_augmentation import WorkerAugmentation

__all__ = ["TensorImages", "serve_from_memory"]


class TensorImages(Dataset[Pair]):
    """Serve preprocessed floats from images in memory.

    Args:
        images: Bytes, taken as ``[0, 1]``, or floats; shape ``(N, C, H, W)``.
        targets: Class indices, shape ``(N,)``.
        preprocessing: Maps a batch of floats from 0 to 1.
        augmentation: Changes the images of a batch before the preprocessing.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, preprocessing: nn.Module, augmentation: WorkerAugmentation | None = None
    ) -> None:
        self.images, self.targets = images, targets
        self.preprocessing, self.augmentation = preprocessing, augmentation

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Pair:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Pair]:
        """Change a whole batch at once; DataLoader prefers this method to one call per image."""
        chosen = torch.as_tensor(indices)
        pixels = self.images[chosen]
        if self.augmentation is not None:
            pixels = self.augmentation(pixels, indices)
        x = self.preprocessing(F.to_dtype(pixels, torch.float32, scale=True))
        return list(zip(x.unbind(), self.targets[chosen].unbind(), strict=True))


def serve_from_memory(
    module: ImageDataModule, images: Tensor, targets: Tensor, test: Tensor, source: str | Path
) -> None:
    """Split images into ``train_set``, ``val_set`` and ``test_set`` of a module, preprocessed as it says.

    Args:
        module: Receives the three parts and the preprocessing, fitted on the training part.
        images: All images ``(N, C, H, W)``.
        targets: All class indices ``(N,)``.
        test: Indices of the test part.
        source: Name or folder of the data set, for errors.
    """
    shape = tuple(images.shape[1:])
    if shape != module.image_shape:
        raise ValueError(
            f"`{source}` must hold images of shape {module.image_shape}, got {shape}. Get the data set again."
        )
    is_test = torch.zeros(len(targets), dtype=torch.bool)
    is_test[test] = True
    rest = (~is_test).nonzero().flatten()
    check_labels(targets[rest], module.num_classes, f"the training part of {source}")
    check_labels(targets[test], module.num_classes, f"the test part of {source}")
    train, val = (rest[part] for part in split(targets[rest], "val_fraction", module.val_fraction, module.seed))
    module._fit_preprocessing(images[chunk] for chunk in torch.split(train, 1024))
    everything = TensorImages(images, targets, module.preprocessing)
    augmented = everything
    if module.augmentation is not None:
        augmented = TensorImages(images, targets, module.preprocessing, module.augmentation)
    module.train_set = Subset(augmented, train.tolist())
    module.val_set = Subset(everything, val.tolist())
    module.test_set = Subset(everything, test.tolist())
