"""Data sets in memory: images and tables, each with a fixed train part and a fixed test part."""

import functools
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits, make_classification, make_hastie_10_2
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import Dataset

from lightning_trainingkit.data import FashionMNISTDataModule

__all__ = ["DATA", "Examples", "parts"]

_TRAIN_FILE = 60_000  # images of Fashion-MNIST's train file, which stand before the test file's


class Examples(Dataset[list[Tensor]]):
    """Inputs and targets, a batch of them at once."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> list[Tensor]:
        return [self.x[index], self.y[index]]

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [self.x[indices], self.y[indices]]


@functools.cache
def parts(name: str) -> tuple[Examples, Examples]:
    """Make the train part and the test part of a data set, both standardised by the train part."""
    train, test = DATA[name]()
    dims = tuple(range(train.x.ndim)) if train.x.ndim > 2 else 0  # images by one mean, tables by each column
    std, mean = torch.std_mean(train.x, dims, keepdim=True)
    return Examples((train.x - mean) / std, train.y), Examples((test.x - mean) / std, test.y)


def _cut(x: Tensor, y: Tensor, trained: int) -> tuple[Examples, Examples]:
    return Examples(x[:trained], y[:trained]), Examples(x[trained:], y[trained:])


def _digits() -> tuple[Examples, Examples]:
    """1,347 of scikit-learn's digits, and the other 450."""
    found = load_digits()
    order = _order(len(found.target))
    images = torch.tensor(found.images, dtype=torch.float32)[:, None]
    return _cut(images[order], torch.tensor(found.target)[order], 1347)


def _fashion(
    images: int, tested: int, pixels: int, classes: tuple[int, ...] = tuple(range(10))
) -> Callable[[], tuple[Examples, Examples]]:
    """Random images of Fashion-MNIST's train file and of its test file.

    Args:
        images: Images to train on.
        tested: Images of the test part.
        pixels: Side of the images, 28 or 14.
        classes: Kinds of clothing. They are numbered from 0 in this order.
    """

    def load() -> tuple[Examples, Examples]:
        data = FashionMNISTDataModule()
        data.setup()
        everything = data.train_set.dataset
        found = []
        for file, wanted in ((slice(None, _TRAIN_FILE), images), (slice(_TRAIN_FILE, None), tested)):
            x, y = everything.images[file], everything.targets[file]
            order = _order(len(y))
            chosen = order[torch.isin(y[order], torch.tensor(classes))][:wanted]
            kinds = torch.tensor([classes.index(label) for label in y[chosen].tolist()])
            found.append(Examples(avg_pool2d(x[chosen].float(), 28 // pixels), kinds))
        return found[0], found[1]

    return load


def _sphere() -> tuple[Examples, Examples]:
    """Whether a point of ten normal coordinates lies outside of a sphere (Hastie et al., example 10.2)."""
    x, y = make_hastie_10_2(3500, random_state=0)
    return _cut(torch.tensor(x, dtype=torch.float32), torch.tensor(y > 0).long(), 2000)


def _clusters() -> tuple[Examples, Examples]:
    """Five classes of several clusters each in 20 columns, ten of them informative, with 5 % of wrong labels."""
    x, y = make_classification(
        4000, 20, n_informative=10, n_classes=5, n_clusters_per_class=3, class_sep=1.5, flip_y=0.05, random_state=0
    )
    return _cut(torch.tensor(x, dtype=torch.float32), torch.tensor(y), 2500)


def _order(length: int) -> Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(0))


DATA: dict[str, Callable[[], tuple[Examples, Examples]]] = {
    "digits": _digits,
    "fashion": _fashion(6000, 2000, 28),
    "small fashion": _fashion(6000, 2000, 14),
    "tops": _fashion(6000, 1000, 14, (0, 2, 3, 4, 6)),  # the trained net has seen these alone
    "other clothes": _fashion(1000, 2000, 14, (1, 5, 7, 8, 9)),
    "sphere": _sphere,
    "clusters": _clusters,
}
