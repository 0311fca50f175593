"""Eighteen tasks: data, model, optimizer. Nine of them are set aside."""

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
        data: Makes inputs and targets.
        model: ``mlp``, ``cnn``, ``cnn_bn``, ``residual`` or ``vit``.
        optimizer: ``sgd`` (momentum 0.9) or ``adamw``.
        rate: A good learning rate, with a schedule that ends at zero.
        epochs: Epochs until such a training has converged.
        trained: Examples to train on.
    """

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


def _digits(group: tuple[int, ...] = tuple(range(10))) -> tuple[Tensor, Tensor]:
    """Digits, and the group of each digit."""
    found = datasets.load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(group)[found.target]


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


def _board() -> tuple[Tensor, Tensor]:
    """A chessboard of three by three fields, and two inputs that say nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2600, 4, generator=generator)
    return x, ((3 * x[:, 0]).long() + (3 * x[:, 1]).long()) % 2


def _waves() -> tuple[Tensor, Tensor]:
    """Sum of products of sines, a regression."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(2600, 4, generator=generator) - 1
    y = (3 * x[:, 0]).sin() * (3 * x[:, 1]).cos() + (2 * x[:, 2]).sin() * x[:, 3]
    return x, y + 0.1 * torch.randn(2600, generator=generator)


def _curve() -> tuple[Tensor, Tensor]:
    x, y = datasets.make_s_curve(2600, noise=0.1, random_state=0)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y).float()


def _hastie() -> tuple[Tensor, Tensor]:
    x, y = datasets.make_hastie_10_2(3400, random_state=0)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y > 0).long()


def _of(
    function: Callable[..., tuple[Tensor, Tensor]], *given: object, **options: object
) -> Callable[[], tuple[Tensor, Tensor]]:
    return functools.partial(function, *given, **options)


_PAIR = {"n_features": 30, "n_informative": 8, "n_clusters_per_class": 3, "class_sep": 1.5, "flip_y": 0.02}
_BLOBS = {"n_features": 20, "n_informative": 10, "n_classes": 4, "n_clusters_per_class": 2, "class_sep": 2.0}
_PARITY, _LOOPS, _THIRDS = (0, 1) * 5, (1, 0, 0, 0, 0, 0, 1, 0, 2, 1), (0, 0, 0, 1, 1, 1, 2, 2, 2, 2)
_classes, _friedman = datasets.make_classification, datasets.make_friedman1
_DEVELOPMENT = {
    "digits, mlp": Task(_of(_digits), "mlp", "sgd", 0.02, 30, 397, batch=16),
    "table": Task(_of(_table, _classes, 2200, **_BLOBS, flip_y=0.0), "mlp", "adamw", 0.003, 25, 800),
    "friedman": Task(_of(_table, _friedman, 2200, noise=0.5), "mlp", "sgd", 0.03, 30, 800, activation="Tanh"),
    "spirals": Task(_spirals, "mlp", "adamw", 0.005, 25, 800),
    "parity, cnn with norm": Task(_of(_digits, _PARITY), "cnn_bn", "sgd", 0.02, 20, 397, width=8),
    "digits, residual": Task(_of(_digits), "residual", "adamw", 0.002, 20, 397),
    "shoes, mlp": Task(_of(_fashion, (2, 4, 5, 7, 9)), "mlp", "sgd", 0.01, 25, 800),
    "swiss roll": Task(_swiss, "mlp", "sgd", 0.03, 30, 800, activation="GELU"),
    "two classes, residual": Task(_of(_table, _classes, 2200, **_PAIR), "residual", "sgd", 0.01, 25, 800),
}
_HELD_OUT = {
    "thirds, cnn": Task(_of(_digits, _THIRDS), "cnn", "sgd", 0.03, 30, 500, width=8),
    "loops, vit": Task(_of(_digits, _LOOPS), "vit", "adamw", 0.003, 25, 500, width=32),
    "wardrobe, cnn with norm": Task(_of(_fashion, (0, 4, 5, 8)), "cnn_bn", "adamw", 0.005, 15, 800, width=8),
    "bags, mlp": Task(_of(_fashion, (1, 3, 7, 8)), "mlp", "adamw", 0.002, 20, 800, activation="GELU"),
    "moons": Task(_of(_table, datasets.make_moons, 2600, noise=0.3), "mlp", "adamw", 0.005, 20, 1000),
    "chessboard": Task(_board, "mlp", "adamw", 0.02, 30, 1200, activation="Tanh"),
    "hastie, residual": Task(_hastie, "residual", "sgd", 0.01, 20, 1200),
    "waves, residual": Task(_waves, "residual", "adamw", 0.003, 20, 1200),
    "s curve": Task(_curve, "mlp", "sgd", 0.02, 25, 1200, activation="GELU"),
}
HALVES = {"development": _DEVELOPMENT, "held-out": _HELD_OUT}
TASKS = {**_DEVELOPMENT, **_HELD_OUT}
"""The tasks by name. The benchmark's text says which of them had been looked at before."""
