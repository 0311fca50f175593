"""Digits in memory: how the images are scaled, and what the targets are."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .settings import Settings

__all__ = ["INPUTS", "LABELS", "STEPS", "loaders"]

STEPS, TRAINED = 20, 1280  # steps of an epoch, and images of the training part

INPUTS: dict[str, Callable[[Tensor], Tensor]] = {  # from pixels between 0 and 1
    "standardised": lambda x: (x - x.mean()) / x.std(),
    "0..1": lambda x: x,
    "0..255": lambda x: x * 255,
    "0..65535": lambda x: x * 65535,
    "divided twice": lambda x: x / 255,
    "divided thrice": lambda x: x / 255**2,
    "zero": lambda x: (x / 255).floor(),  # a division of integers
    "off centre": lambda x: (x - x.mean()) / x.std() + 10,
    "one nan": lambda x: _poisoned(INPUTS["standardised"](x), slice(7, 8)),
    "many nan": lambda x: _poisoned(INPUTS["standardised"](x), slice(0, None, 50)),
}

LABELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # from the true labels and a random order
    "true": lambda y, order: y,
    "shuffled": lambda y, order: y[order],
    "shifted": lambda y, order: y.roll(1),
    "half noise": lambda y, order: torch.where(order % 2 == 0, y, y[order]),
    "mostly noise": lambda y, order: torch.where(order % 10 == 0, y, y[order]),
    "unbalanced": lambda y, order: torch.where(order % 50 == 0, y, torch.zeros_like(y)),
    "ink": lambda y, order: _ink(),
}


class Images(Dataset[list[Tensor]]):
    """Images and targets, a batch of them at once."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> list[Tensor]:
        return [self.x[index], self.y[index]]

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [self.x[indices], self.y[indices]]


def loaders(settings: Settings) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Make the loaders for training and validation. The labels for validation are always right."""
    pixels, digits = _digits()
    x = INPUTS[settings.inputs](pixels)
    x[TRAINED:] = x[TRAINED:].nan_to_num()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(settings.seed))
    y = LABELS[settings.labels](digits, order)
    truth = y if y.is_floating_point() else digits
    train = DataLoader(
        Images(x[:TRAINED], y[:TRAINED]), settings.batch_size, shuffle=True, collate_fn=_as_it_is, drop_last=True
    )
    return train, DataLoader(Images(x[TRAINED:], truth[TRAINED:]), 256, collate_fn=_as_it_is)


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    """Images between 0 and 1 and their digits, in a fixed random order."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return images[order], torch.tensor(found.target)[order]


def _ink() -> Tensor:
    """Mean row and column of an image's ink, standardised: a regression."""
    images = _digits()[0][:, 0]
    places = torch.arange(8.0)
    means = torch.stack([(images.sum(dim) * places).sum(1) / images.sum((1, 2)) for dim in (1, 2)], 1)
    return (means - means.mean(0)) / means.std(0)


def _poisoned(x: Tensor, rows: slice) -> Tensor:
    x[rows, 0, 3, 3] = torch.nan
    return x


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch
