"""The tasks: a net, its data, an optimizer and a length; and which half is set aside."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L

from .data import parts
from .nets import NETS

__all__ = ["GRID", "HALVES", "SEEDS", "TASKS", "Net", "Task"]

HALVES = ("development", "held-out")
SEEDS = (0, 1, 2, 3, 4)
GRID = tuple(float(f"{10 ** (power / 3):.4g}") for power in range(-15, 4))  # 1e-5 to 10


@dataclass(frozen=True)
class Task:
    """One kind of training, with a constant learning rate.

    Args:
        name: Data, net and optimizer: SGD, with momentum 0.9, or AdamW.
        half: One of ``HALVES``. The rules of the finder may be chosen by the development half alone.
        data: A name in ``DATA``.
        net: A name in ``NETS``.
        epochs: Length of the training.
        batch_size: Examples of a step.
        weight_decay: Of the optimizer.
    """

    name: str
    half: str
    data: str
    net: str
    epochs: int
    batch_size: int
    weight_decay: float = 0.0

    def module(self, seed: int, lr: float = 1e-3) -> "Net":
        """Make the module. The seed fixes the weights and, from here on, the order of the batches."""
        NETS[self.net]()  # a net from an earlier training is trained here, before the seed is set
        L.seed_everything(seed, verbose=False)
        return Net(self, lr)

    def loader(self) -> DataLoader[list[Tensor]]:
        """Make the shuffled loader of the train part."""
        return DataLoader(parts(self.data)[0], self.batch_size, shuffle=True, collate_fn=_as_it_is, drop_last=True)

    @property
    def optimizer(self) -> str:
        """``SGD`` or ``AdamW``."""
        return self.name.rpartition(", ")[2]

    @property
    def chance(self) -> float:
        """Accuracy of always answering the most frequent class of the test part."""
        y = parts(self.data)[1].y
        return y.bincount().max().item() / len(y)

    @property
    def above_chance(self) -> float:
        """Accuracy that chance exceeds in one of 40 trainings: two standard errors above it."""
        return self.chance + 2 * math.sqrt(self.chance * (1 - self.chance) / len(parts(self.data)[1]))


class Net(L.LightningModule):
    """A plain classifier, as a user writes it."""

    def __init__(self, task: Task, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.task = task
        self.net: nn.Module = NETS[task.net]()
        self.net(parts(task.data)[0].x[:2])  # lazy layers take their size

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trainable = [each for each in self.parameters() if each.requires_grad]
        if self.task.optimizer == "SGD":
            return torch.optim.SGD(trainable, self.lr, momentum=0.9, weight_decay=self.task.weight_decay)
        return torch.optim.AdamW(trainable, self.lr, weight_decay=self.task.weight_decay)


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch


_DEVELOPMENT, _HELD_OUT = HALVES
TASKS = {
    task.name: task
    for task in (
        Task("digits, MLP, SGD", _DEVELOPMENT, "digits", "digits MLP", 30, 32),
        Task("digits, CNN with BatchNorm, AdamW", _DEVELOPMENT, "digits", "digits CNN with BatchNorm", 15, 32),
        Task("Fashion-MNIST, CNN, SGD", _DEVELOPMENT, "small fashion", "fashion CNN", 8, 64),
        Task("Fashion-MNIST, ViT, AdamW", _DEVELOPMENT, "fashion", "fashion ViT", 6, 64, 0.05),
        Task("sphere, MLP, AdamW", _DEVELOPMENT, "sphere", "sphere MLP", 40, 64, 0.01),
        Task("other clothes, new head alone, SGD", _DEVELOPMENT, "other clothes", "new head", 25, 32),
        Task("Fashion-MNIST, MLP, AdamW", _DEVELOPMENT, "fashion", "fashion MLP", 15, 128),
        Task("digits, CNN, AdamW", _HELD_OUT, "digits", "digits CNN", 15, 32, 0.01),
        Task(
            "digits, residual net with BatchNorm, SGD",
            _HELD_OUT,
            "digits",
            "digits residual net with BatchNorm",
            12,
            32,
            5e-4,
        ),
        Task("digits, ViT, SGD", _HELD_OUT, "digits", "digits ViT", 30, 64),
        Task(
            "Fashion-MNIST, MLP with BatchNorm, SGD", _HELD_OUT, "fashion", "fashion MLP with BatchNorm", 10, 64, 5e-4
        ),
        Task("Fashion-MNIST, residual net, AdamW", _HELD_OUT, "small fashion", "fashion residual net", 7, 64),
        Task("clusters, MLP with LayerNorm, SGD", _HELD_OUT, "clusters", "clusters MLP with LayerNorm", 50, 128),
        Task(
            "other clothes, new head and its net, AdamW",
            _HELD_OUT,
            "other clothes",
            "new head and its net",
            15,
            32,
            0.01,
        ),
    )
}
