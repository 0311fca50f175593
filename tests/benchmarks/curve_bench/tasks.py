"""Eighteen tasks: data, model, optimizer. Nine of them are set aside."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from sklearn import datasets
from torch import Tensor

from . import data

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
        return data.load(self.data)[1].is_floating_point()

    def parts(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Examples to train, to validate and to test on."""
        x, y = data.load(self.data)
        validated = min(_VALIDATED, (len(x) - self.trained) // 3)
        ends = [self.trained, self.trained + validated, self.trained + validated + _TESTED]
        return (
            (x[: ends[0]], y[: ends[0]]),
            (x[ends[0] : ends[1]], y[ends[0] : ends[1]]),
            (x[ends[1] : ends[2]], y[ends[1] : ends[2]]),
        )


def _of(
    function: Callable[..., tuple[Tensor, Tensor]], *given: object, **options: object
) -> Callable[[], tuple[Tensor, Tensor]]:
    return functools.partial(function, *given, **options)


_LOOPS, _THIRDS, _HIGH = (1, 0, 0, 0, 0, 0, 1, 0, 2, 1), (0, 0, 0, 1, 1, 1, 2, 2, 2, 2), (0,) * 5 + (1,) * 5
_DEVELOPMENT = {
    "friedman": Task(
        _of(data.table, datasets.make_friedman1, 2200, noise=0.5), "mlp", "sgd", 0.03, 30, 800, activation="Tanh"
    ),
    "spirals": Task(data.spirals, "mlp", "adamw", 0.005, 25, 800),
    "digits, residual": Task(data.digits, "residual", "adamw", 0.002, 20, 397),
    "shoes, mlp": Task(_of(data.fashion, (2, 4, 5, 7, 9)), "mlp", "sgd", 0.01, 25, 800),
    "thirds, cnn": Task(_of(data.digits, _THIRDS), "cnn", "sgd", 0.03, 30, 500, width=8),
    "loops, vit": Task(_of(data.digits, _LOOPS), "vit", "adamw", 0.003, 25, 500, width=32),
    "wardrobe, cnn with norm": Task(_of(data.fashion, (0, 4, 5, 8)), "cnn_bn", "adamw", 0.005, 15, 800, width=8),
    "chessboard": Task(data.board, "mlp", "adamw", 0.02, 30, 1200, activation="Tanh"),
    "waves, residual": Task(data.waves, "residual", "adamw", 0.003, 20, 1200),
}
_HELD_OUT = {
    "larger digit, cnn": Task(data.larger, "cnn", "sgd", 0.02, 20, 2000, width=8),
    "high digits, vit": Task(_of(data.digits, _HIGH), "vit", "adamw", 0.002, 12, 500, width=32),
    "kinds, cnn with norm": Task(data.kinds, "cnn_bn", "sgd", 0.01, 15, 800, width=8),
    "all clothes, mlp": Task(_of(data.fashion, tuple(range(10))), "mlp", "sgd", 0.02, 15, 1000, activation="GELU"),
    "three signs": Task(data.signs, "mlp", "adamw", 0.005, 30, 1200),
    "stripes, residual": Task(data.stripes, "residual", "sgd", 0.02, 25, 1200),
    "chirps": Task(data.chirps, "mlp", "adamw", 0.001, 15, 1000, activation="GELU"),
    "ripples": Task(data.ripples, "mlp", "sgd", 0.05, 30, 1200, activation="Tanh"),
    "sparse, residual": Task(
        _of(data.table, datasets.make_sparse_uncorrelated, 2600), "residual", "adamw", 0.002, 15, 1000
    ),
}
HALVES = {"development": _DEVELOPMENT, "held-out": _HELD_OUT}
TASKS = {**_DEVELOPMENT, **_HELD_OUT}
"""The tasks by name. The benchmark's text says which of them had been looked at before."""
