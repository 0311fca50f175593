"""The tasks of the part `budget`: a net, its data, an optimizer, and the space that a user would give.

The two tasks of the half ``"development"`` may guide changes of the search. The other two are looked at once.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from learning_rate_bench.data import Examples, parts
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.utils.data import DataLoader

EPOCHS = 10  # of a full training
_RATE = {"low": 1e-5, "high": 1.0, "log": True}
_DECAY = {"low": 1e-6, "high": 1.0, "log": True}
_MOMENTUM = {"low": 0.0, "high": 0.99}
_DROPOUT = {"low": 0.0, "high": 0.7}


@dataclass(frozen=True)
class Task:
    """One kind of training at a constant learning rate, of about 50 batches an epoch.

    Args:
        half: ``"development"`` or ``"held-out"``.
        data: Makes the train part and the validation part.
        net: Makes the net from the module's width and dropout.
        optimizer: Makes the optimizer.
        batch_size: Examples of a step.
        lr: The module's own learning rate, with which steps 1 to 3 begin.
        space: The hyperparameters.
    """

    half: str
    data: Callable[[], tuple[Examples, Examples]]
    net: Callable[[int, float], nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    batch_size: int
    lr: float
    space: Mapping[str, Any]


class Net(L.LightningModule):
    """A plain classifier, as a user writes it.

    Args:
        task: A name in ``TASKS``.
        lr: Learning rate.
        weight_decay: Weight decay.
        momentum: Momentum. AdamW has none.
        dropout: Dropout rate of the hidden layers, if there are any.
        width: Units or channels of the hidden layers.
    """

    def __init__(
        self,
        task: str,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        dropout: float = 0.1,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = TASKS[task].net(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return cross_entropy(self(x), y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", cross_entropy(self(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        own = self.hparams
        options = {"lr": own.lr, "weight_decay": own.weight_decay}
        if "momentum" in TASKS[own.task].space:
            options["momentum"] = own.momentum
        return TASKS[own.task].optimizer(self.parameters(), **options)


class Data(L.LightningDataModule):
    """The data of a task.

    Args:
        task: A name in ``TASKS``.
    """

    def __init__(self, task: str) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader:
        task = TASKS[self.hparams.task]
        return DataLoader(_pairs(task.data()[0]), task.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        validation = TASKS[self.hparams.task].data()[1]
        return DataLoader([[validation.x, validation.y]], batch_size=None)


def train(task: str, params: Mapping[str, Any], seed: int) -> Iterator[tuple[float, float]]:
    """Train in a plain loop, whose arithmetic is that of Lightning's Trainer.

    Args:
        task: A name in ``TASKS``.
        params: The hyperparameters.
        seed: Of the weights, the order and dropout.

    Yields:
        Loss and accuracy on the validation part, after each of ``EPOCHS`` epochs. A loss that is not finite is 1e6.
    """
    torch.manual_seed(seed)
    module, size = Net(task, **params), TASKS[task].batch_size
    optimizer = module.configure_optimizers()
    training, validation = TASKS[task].data()
    for _ in range(EPOCHS):
        module.train()
        for number, batch in enumerate(torch.randperm(len(training))[: len(training) // size * size].split(size)):
            optimizer.zero_grad()
            module.training_step([training.x[batch], training.y[batch]], number).backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            scores = module(validation.x)
            loss = cross_entropy(scores, validation.y).nan_to_num(1e6, 1e6).item()
            yield min(loss, 1e6), (scores.argmax(1) == validation.y).double().mean().item()


def _pairs(examples: Examples) -> list[tuple[Tensor, Tensor]]:
    return list(zip(examples.x, examples.y, strict=True))


@functools.cache
def _fashion() -> tuple[Examples, Examples]:
    """3,000 and 1,000 images of Fashion-MNIST, of 7 x 7 pixels."""
    training, validation = (Examples(avg_pool2d(each.x, 2), each.y) for each in parts("small fashion"))
    return Examples(training.x[:3000], training.y[:3000]), Examples(validation.x[:1000], validation.y[:1000])


@functools.cache
def _columns() -> tuple[Examples, Examples]:
    """Ten classes in 300 columns, of which 30 are informative, with 5 % of wrong labels: 2,500 and 2,000 rows."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        4500, 300, n_informative=30, n_redundant=20, n_classes=10, class_sep=2.0, flip_y=0.05, random_state=0
    )
    table, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return Examples(table[:2500], targets[:2500]), Examples(table[2500:], targets[2500:])


@functools.cache
def _noisy_digits() -> tuple[Examples, Examples]:
    """The digits with a noise as strong as the images: without it each good net scores 98 %."""
    draw = torch.Generator().manual_seed(0)
    training, validation = (
        Examples(each.x + torch.randn(each.x.shape, generator=draw), each.y) for each in parts("digits")
    )
    return training, validation


def _mlp(width: int, dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (20, width):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, 5))


def _cnn(width: int, dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width * 4, 10))


class _Residual(nn.Module):
    """A linear layer, a residual block of two linear layers with BatchNorm, dropout, linear layer."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, width))
        self.block = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).relu())


TASKS = {
    "clusters, MLP, SGD": Task(
        "development",
        lambda: parts("clusters"),
        _mlp,
        torch.optim.SGD,
        50,
        0.1,
        {
            "lr": _RATE,
            "weight_decay": _DECAY,
            "momentum": _MOMENTUM,
            "dropout": _DROPOUT,
            "width": {"low": 8, "high": 128, "log": True, "integer": True},
        },
    ),
    "noisy digits, residual net with BatchNorm, RMSprop": Task(
        "development",
        _noisy_digits,
        _Residual,
        torch.optim.RMSprop,
        27,
        0.001,
        {
            "lr": _RATE,
            "weight_decay": _DECAY,
            "momentum": _MOMENTUM,
            "dropout": _DROPOUT,
            "width": {"low": 8, "high": 128, "log": True, "integer": True},
        },
    ),
    "Fashion-MNIST, CNN, AdamW": Task(
        "held-out",
        _fashion,
        _cnn,
        torch.optim.AdamW,
        60,
        0.001,
        {
            "lr": _RATE,
            "weight_decay": _DECAY,
            "dropout": _DROPOUT,
            "width": {"low": 4, "high": 16, "log": True, "integer": True},
        },
    ),
    "300 columns, logistic regression, SGD": Task(
        "held-out",
        _columns,
        lambda width, dropout: nn.Linear(300, 10),
        torch.optim.SGD,
        50,
        0.01,
        {"lr": {**_RATE, "high": 10.0}, "weight_decay": {**_DECAY, "high": 10.0}, "momentum": _MOMENTUM},
    ),
}
