"""Eighteen tasks: data, model, optimizer. Six of them are set aside."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn import datasets
from torch import Tensor

import lightning_trainingkit as kit

__all__ = ["HALVES", "TASKS", "Task"]

_TESTED = 1000
_VALIDATED = 400  # or a third of what is left


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
        validated = min(_VALIDATED, (len(x) - self.trained) // 3)
        ends = [self.trained, self.trained + validated, self.trained + validated + _TESTED]
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


def _bars() -> tuple[Tensor, Tensor]:
    """Noisy images of a bar, in one of four directions."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2300) % 4
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    along = torch.stack([rows, columns, rows + columns - 3.5, rows - columns + 3.5])[y]
    place = 1 + 5 * torch.rand(2300, 1, 1, generator=generator)
    images = ((along - place).abs() < 1).float() + 0.7 * torch.randn(2300, 8, 8, generator=generator)
    return images[:, None], y


def _ink() -> tuple[Tensor, Tensor]:
    """Digits, and how far right their ink is: a regression from images."""
    x, _ = _digits()
    return x, (x[:, 0] * torch.arange(8.0)).sum((1, 2)) / x[:, 0].sum((1, 2))


def _real(load_table: Callable[..., tuple[object, object]]) -> tuple[Tensor, Tensor]:
    x, y = load_table(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def _of(
    function: Callable[..., tuple[Tensor, Tensor]], *given: object, **options: object
) -> Callable[[], tuple[Tensor, Tensor]]:
    return functools.partial(function, *given, **options)


_PAIR = {"n_features": 30, "n_informative": 8, "n_clusters_per_class": 3, "class_sep": 1.5, "flip_y": 0.02}
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
    "parity, cnn with norm": Task("development", _of(_digits, True), "cnn_bn", "sgd", 0.02, 20, 397, width=8),
    "digits, residual": Task("development", _of(_digits, False), "residual", "adamw", 0.002, 20, 397),
    "shoes, mlp": Task("development", _of(_fashion, (2, 4, 5, 7, 9)), "mlp", "sgd", 0.01, 25, 800),
    "shells": Task(
        "development",
        _of(_table, datasets.make_gaussian_quantiles, 2200, n_features=4, n_classes=3),
        "mlp",
        "adamw",
        0.005,
        25,
        800,
        activation="GELU",
    ),
    "friedman 3": Task(
        "development", _of(_table, datasets.make_friedman3, 2200, noise=0.05), "mlp", "adamw", 0.005, 30, 800
    ),
    "swiss roll": Task("development", _swiss, "mlp", "sgd", 0.03, 30, 800, activation="GELU"),
    "clothes, residual": Task("held-out", _of(_fashion, tuple(range(10))), "residual", "adamw", 0.002, 20, 800),
    "bars, cnn": Task("held-out", _bars, "cnn", "sgd", 0.02, 20, 800, width=8),
    "ink, cnn": Task("held-out", _ink, "cnn", "adamw", 0.01, 25, 397, batch=16, width=8),
    "tumours": Task(
        "held-out", _of(_real, datasets.load_breast_cancer), "mlp", "sgd", 0.01, 30, 200, 8, activation="Tanh"
    ),
    "two classes, residual": Task(
        "held-out", _of(_table, datasets.make_classification, 2200, **_PAIR), "residual", "sgd", 0.01, 25, 800
    ),
    "friedman 2": Task(
        "held-out", _of(_table, datasets.make_friedman2, 2200, noise=80.0), "mlp", "adamw", 0.003, 30, 800
    ),
}
"""The tasks by name. Six of the development half were held out at first; the benchmark's text says more."""

HALVES = ("development", "held-out")
