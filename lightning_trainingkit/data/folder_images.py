"""Image files as data sets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit.data.image_files import ImageReader
from lightning_trainingkit.data.worker_augmentation import WorkerAugmentation

__all__ = ["FolderImages", "Sample", "UnlabelledImages"]

Sample = tuple[str, int]


class FolderImages(Dataset[tuple[Tensor, Tensor]]):
    """Decode, resize, cut, augment and preprocess image files, one at a time.

    Args:
        samples: Paths and class indices.
        reader: Decodes a file.
        preprocessing: Maps floats from 0 to 1.
        augmentation: Changes an image before the preprocessing.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        reader: ImageReader,
        preprocessing: nn.Module,
        augmentation: WorkerAugmentation | None = None,
    ) -> None:
        self.samples = samples
        self._images = UnlabelledImages([path for path, _ in samples], reader, preprocessing)
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path, target = self.samples[index]
        if self._augmentation is None:
            return self._images[index], torch.tensor(target)
        reader = self._images.reader
        pixels = reader.decode_whole(path) if self._augmentation.whole else reader.decode(path)
        return self._images.preprocessed(self._augmentation(pixels[None], [index])[0]), torch.tensor(target)


class UnlabelledImages(Dataset[Tensor]):
    """Decode, resize, cut and preprocess image files without labels, one at a time.

    Args:
        paths: The files.
        reader: Decodes a file.
        preprocessing: Maps floats from 0 to 1.
    """

    def __init__(self, paths: Sequence[str], reader: ImageReader, preprocessing: nn.Module) -> None:
        self.paths, self.reader, self.preprocessing = paths, reader, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocessed(self.reader.decode(self.paths[index]))

    def preprocessed(self, pixels: Tensor) -> Tensor:
        """Preprocess an image of bytes or floats."""
        x: Tensor = self.preprocessing(F.to_dtype(pixels, torch.float32, scale=True))
        return x
