"""Look at learning curves: a training planted for each shape, its curve as the lecture draws it, and what is read.

A perceptron learns the digits nine times. Eight trainings have a planted cause: constant initial weights, a rate that
is far too high, few images with wrong labels, and so on. `read_curves` sees losses and accuracies, and no cause.

Settings were chosen until each training showed its shape. How often rules are right is measured on other trainings, by
tests/benchmarks/curves.py.

Expected: all nine shapes are read as planted, with the defaults
Cost:     23 s on 2 CPU cores, 75 s if they are busy, nothing to download
Command:  python recipes/reproduce/learning_curves.py
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.utils.data import TensorDataset, default_collate

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import wandb_runs
from lightning_trainingkit.tuning import read_curves
from lightning_trainingkit.tuning.curve_picture import draw_curves


@dataclass(frozen=True)
class Plant:
    """A training, and the shape that it should show. The defaults are healthy."""

    epochs: int = 20
    lr: float = 3e-3
    schedule: str | None = "cosine"
    optimizer: str = "AdamW"
    weight_decay: float = 0.01
    batch_size: int = 32
    width: int = 64
    dropout: float = 0.0
    constant_init: bool = False
    images: int | None = None
    wrong_labels: float = 0.0
    val_images: int | None = None
    val_in_train: bool = False


PLANTS = {
    "healthy": Plant(),
    "not_started": Plant(constant_init=True, schedule=None),
    "diverged": Plant(lr=30.0, schedule=None, optimizer="SGD"),
    "plateau": Plant(lr=0.02, schedule=None, batch_size=8, dropout=0.3),
    "cut_too_early": Plant(epochs=8, lr=2e-4, schedule=None),
    "overfit": Plant(epochs=60, images=100, wrong_labels=0.2, schedule=None),
    "underfit": Plant(width=3),
    "noisy": Plant(lr=0.02, schedule=None, wrong_labels=0.3, val_images=4),
    "leaked": Plant(epochs=60, wrong_labels=0.3, width=512, val_in_train=True, images=300),
}


def main() -> None:
    """Train each plant, read its curves, and draw them with the word that was read."""
    parser = experiments.argument_parser("learning_curves", __doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(PLANTS), default=list(PLANTS), help="some shapes alone")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    folder = experiments.open_folder("learning_curves", args.output, resume=args.resume)

    # 1. A training for each shape. With --resume, a finished training is read from its file.
    curves = {shape: finished(args, folder, shape) or train(args, folder, shape) for shape in args.shapes}

    # 2. What the curves say.
    readings = {shape: read_curves({name: tuple(points) for name, points in curves[shape].items()}) for shape in curves}
    rows = [
        {"planted": shape, "read": each.shape, "verdict": each.verdict, "number": each.value}
        for shape, each in readings.items()
    ]

    # 3. The lecture's picture, a panel for each shape.
    columns = min(3, len(readings))
    lines = math.ceil(len(readings) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines), layout="constrained")
    for axes, (shape, reading) in zip(
        figure.subplots(lines, columns, squeeze=False).flat, readings.items(), strict=False
    ):
        draw_curves(axes, reading, "min")
        axes.set_title(reading.shape if reading.shape == shape else f"{reading.shape} (planted: {shape})")
    rank_zero_only(figure.savefig)(folder / "learning_curves.png", dpi=80)

    seconds = time.perf_counter() - start
    right = sum(shape == each.shape for shape, each in readings.items())
    metrics = {"right": right, "said": {shape: each.line for shape, each in readings.items()}}
    experiments.write_results(folder, vars(args), metrics, rows, seconds)
    experiments.print_table(
        f"What `read_curves` says of {len(rows)} trainings on {args.data}: {right} as planted, {seconds:.0f} s",
        rows,
        *(f"{shape}: {each.line}" for shape, each in readings.items()),
        f"Files: {folder}/learning_curves.png, {folder}/results.json, {folder}/*/results.json (curves)",
        "Next:  python recipes/check.py    (steps 1 to 3, before a training)",
        *wandb_runs.center(args, folder),
    )


def train(args: argparse.Namespace, folder: Path, shape: str) -> dict[str, Any]:
    """Train one plant, write its curves to a file, and return steps and values by metric."""
    start = time.perf_counter()
    plant, curves = PLANTS[shape], Curves()
    L.seed_everything(args.seed, verbose=False)
    data = planted_data(args, plant)
    widths = [math.prod(data.image_shape), plant.width, plant.width]
    hidden = [(nn.Linear(*widths[place : place + 2]), nn.ReLU(), nn.Dropout(plant.dropout)) for place in range(2)]
    layers = [layer for block in hidden for layer in block]
    net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(plant.width, data.num_classes))
    if plant.constant_init:
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
    names = ("lr", "schedule", "optimizer", "weight_decay")
    model = kit.ImageClassifier(net, data.num_classes, **{name: getattr(plant, name) for name in names})
    with wandb_runs.recorded(args, folder, shape) as center:
        trainer = experiments.new_trainer(
            args, folder, curves, *center, max_epochs=plant.epochs, num_sanity_val_steps=0
        )
        trainer.fit(model, data)
    found = {name: [steps, values] for name, (steps, values) in curves.points.items()}
    seconds = time.perf_counter() - start
    experiments.write_results(folder / shape, settings(args, shape), {"curves": found}, [], seconds)
    return found


class Curves(L.Callback):
    """Record the training loss of each step, and what the epochs log. Infinity and NaN are kept as None."""

    def __init__(self) -> None:
        self.points: dict[str, tuple[list[int], list[float | None]]] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Add the loss of a step."""
        self.add("train/loss", trainer.global_step, outputs["loss"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the values of an epoch; validation has come before."""
        for name in ("val/loss", "train/acc", "val/acc"):
            self.add(name, trainer.global_step, trainer.callback_metrics[name])

    def add(self, name: str, step: int, value: Any) -> None:
        """Add a value. JSON has no NaN."""
        steps, values = self.points.setdefault(name, ([], []))
        steps.append(step)
        values.append(float(value) if math.isfinite(float(value)) else None)


def planted_data(args: argparse.Namespace, plant: Plant) -> Any:
    """Load the data with the plant's training and validation images."""
    data = experiments.data_module(args.data, args.data_dir, batch_size=plant.batch_size, seed=args.seed)
    data.prepare_data()
    data.setup()
    generator = torch.Generator().manual_seed(args.seed)
    train, val = [
        few_images(part, count, plant.wrong_labels, generator)
        for part, count in ((data.train_set, plant.images), (data.val_set, plant.val_images))
    ]
    if plant.val_in_train:
        train = [torch.cat(parts) for parts in zip(train, val, strict=True)]
    data.train_set, data.val_set = TensorDataset(*train), TensorDataset(*val)
    return data


def few_images(part: Any, count: int | None, wrong: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Take ``count`` images, or at most 1,000, and shuffle a share of their labels among themselves."""
    chosen = torch.randperm(len(part), generator=generator)[: count or 1000]
    images, labels = default_collate([part[index] for index in chosen.tolist()])
    shuffled = torch.randperm(round(wrong * len(labels)), generator=generator)
    labels[: len(shuffled)] = labels[: len(shuffled)][shuffled]
    return [images, labels]


def settings(args: argparse.Namespace, shape: str) -> dict[str, Any]:
    """Select what changes the numbers of a training."""
    others = ("output", "resume", "shapes", "wandb")
    return {**{key: value for key, value in vars(args).items() if key not in others}, **asdict(PLANTS[shape])}


def finished(args: argparse.Namespace, folder: Path, shape: str) -> dict[str, Any] | None:
    """Load the curves of this plant from an earlier run with the same settings, or None."""
    file = folder / shape / "results.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found["metrics"]["curves"] if found.get("config") == settings(args, shape) else None


if __name__ == "__main__":
    main()
