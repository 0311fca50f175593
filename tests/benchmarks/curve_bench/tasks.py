"""Twelve tasks: data, model, optimizer. Half of them are set aside."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn import datasets
from torch import Tensor

import lightning_trainingkit as kit

__all__ = ["HALVES", "TASKS", "Task"]

_TESTED = 1000
_VALIDATED = 400


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        half: ``development`` or ``held-out``.
        data: Makes inputs and targets, in a fixed random order.
        model: ``mlp``, ``cnn``, ``cnn_bn`` or ``residual``.
        optimizer: ``sgd`` (momentum 0.9) or ``adamw``.
        rate: A good learning rate, with a schedule that ends at zero.
        epochs: Epochs until such a training has converged.
        trained: Examples to train on.
    """

    half: str
    data: Callable[[], tuple[Tensor, Tensor]]
    model: str
    optimizer: str
    rate: float
    epochs: int
    trained: int
    batch: int = 32
    width: int = 64
    activation: str = "ReLU"

    @functools.cached_property
    def regression(self) -> bool:
        """Whether the targets are numbers. The loss is then the mean squared error, and there is no accuracy."""
        return load(self.data)[1].is_floating_point()

    def parts(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Examples to train, to validate and to test on."""
        x, y = load(self.data)
        ends = [self.trained, self.trained + _VALIDATED, self.trained + _VALIDATED + _TESTED]
        return (
            (x[: ends[0]], y[: ends[0]]),
            (x[ends[0] : ends[1]], y[ends[0] : ends[1]]),
            (x[ends[1] : ends[2]], y[ends[1] : ends[2]]),
        )


@functools.cache
def load(data: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Examples in a fixed random order, standardised."""
    x, y = data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    x = (x - x.mean(0)) / (x.std(0) + 0.1 * x.std())
    return x, (y - y.mean()) / y.std() if y.is_floating_point() else y


def _digits(parity: bool = False) -> tuple[Tensor, Tensor]:
    found = datasets.load_digits()
    y = torch.tensor(found.target)
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, y % 2 if parity else y


def _fashion(classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    data = kit.FashionMNISTDataModule()
    data.prepare_data()
    data.setup("test")
    pairs = [data.test_set[index] for index in range(len(data.test_set))]
    x, y = torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])
    chosen = torch.isin(y, torch.tensor(classes))
    return torch.nn.functional.avg_pool2d(x[chosen], 2), torch.searchsorted(torch.tensor(classes), y[chosen])


def _table(make: Callable[..., tuple[object, object]], size: int, **options: object) -> tuple[Tensor, Tensor]:
    x, y = make(n_samples=size, random_state=0, **options)
    target = torch.tensor(y)
    return torch.tensor(x, dtype=torch.float32), target.float() if target.is_floating_point() else target.long()


def _spirals() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2600) % 3
    radius = torch.rand(2600, generator=generator) * 0.9 + 0.1
    angle = 4 * radius + y * 2 * torch.pi / 3 + 0.55 * torch.randn(2600, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y


def _swiss() -> tuple[Tensor, Tensor]:
    x, y = datasets.make_swiss_roll(2600, noise=1.5, random_state=0)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y).float()


def _of(
    function: Callable[..., tuple[Tensor, Tensor]], *given: object, **options: object
) -> Callable[[], tuple[Tensor, Tensor]]:
    return functools.partial(function, *given, **options)


_BLOBS = {
    "n_features": 20,
    "n_informative": 10,
    "n_classes": 4,
    "n_clusters_per_class": 2,
    "class_sep": 2.0,
    "flip_y": 0.0,
}

TASKS = {
    "digits, mlp": Task("development", _of(_digits), "mlp", "sgd", 0.02, 30, 397, batch=16),
    "digits, cnn": Task("development", _of(_digits), "cnn", "adamw", 0.01, 25, 397, batch=16, width=8),
    "tops, cnn with norm": Task(
        "development", _of(_fashion, (0, 1, 3, 6, 8)), "cnn_bn", "adamw", 0.005, 15, 800, width=8
    ),
    "table": Task(
        "development", _of(_table, datasets.make_classification, 2200, **_BLOBS), "mlp", "adamw", 0.003, 25, 800
    ),
    "friedman 1": Task(
        "development",
        _of(_table, datasets.make_friedman1, 2200, noise=0.5),
        "mlp",
        "sgd",
        0.03,
        30,
        800,
        activation="Tanh",
    ),
    "spirals": Task("development", _spirals, "mlp", "adamw", 0.005, 25, 800),
    "parity, cnn with norm": Task("held-out", _of(_digits, True), "cnn_bn", "sgd", 0.02, 20, 397, width=8),
    "digits, residual": Task("held-out", _of(_digits, False), "residual", "adamw", 0.002, 20, 397),
    "shoes, mlp": Task("held-out", _of(_fashion, (2, 4, 5, 7, 9)), "mlp", "sgd", 0.01, 25, 800),
    "shells": Task(
        "held-out",
        _of(_table, datasets.make_gaussian_quantiles, 2200, n_features=4, n_classes=3),
        "mlp",
        "adamw",
        0.005,
        25,
        800,
        activation="GELU",
    ),
    "friedman 3": Task(
        "held-out", _of(_table, datasets.make_friedman3, 2200, noise=0.05), "mlp", "adamw", 0.005, 30, 800
    ),
    "swiss roll": Task("held-out", _swiss, "mlp", "sgd", 0.03, 30, 800, activation="GELU"),
}
"""The tasks by name."""

HALVES = ("development", "held-out")
