"""A small training set out of a large one."""

import copy
from typing import TypeVar, cast

import torch
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from lightning_trainingkit.data._base import ImageDataModule

__all__ = ["few_images"]

T = TypeVar("T", bound=ImageDataModule)


def few_images(data: T, count: int, generator: torch.Generator) -> T:
    """Copy a DataModule, with few of its training images, held in memory after their preprocessing.

    Validation, test and the preprocessing, which was fitted on all training images, stay.

    Args:
        data: The data. They are loaded if they are not yet.
        count: Number of training images.
        generator: Draws the images.

    Raises:
        ValueError: If there are fewer images.
    """
    data.prepare_data()
    data.setup()
    images: Dataset[tuple[torch.Tensor, torch.Tensor]] = data.train_set
    size = len(images)  # type: ignore[arg-type]
    if not 1 <= count <= size:
        raise ValueError(f"`--images` must be from 1 to {size}, the images of the training set, got {count}.")
    chosen = torch.randperm(size, generator=generator)[:count]
    few = copy.copy(data)
    pairs = Subset(images, chosen.tolist()).__getitems__(list(range(count)))  # in one call where the data allow it
    few.train_set = cast(Dataset[tuple[torch.Tensor, torch.Tensor]], TensorDataset(*default_collate(pairs)))
    return few
