"""Runs as they come out of files, made for tests of what is done with them."""

import numpy as np

from lightning_trainingkit.dashboards.read.record import Curve, Record


def run(number, lr=0.01, group="grid", steps=60, **changes):
    """A run whose loss has a minimum over the learning rate at 0.003."""
    draw = np.random.default_rng(number)
    x = np.arange(steps, dtype=float) * 10
    far = abs(np.log10(lr / 0.003))
    loss = 0.3 + 0.4 * far + 1.5 * np.exp(-np.arange(steps) / 12)
    values = {
        "train/loss": loss + draw.normal(0, 0.1, steps),
        "train/acc": 1 - loss / 3 + draw.normal(0, 0.01, steps),
        "lr-SGD": np.full(steps, lr),
    }
    curves = {name: Curve(x, value) for name, value in values.items()}
    seen = x[::5]
    curves["val/loss"] = Curve(seen, loss[::5] + 0.1 + draw.normal(0, 0.02, len(seen)))
    curves["val/acc"] = Curve(seen, 0.95 - loss[::5] / 3)
    settings = {
        "id": f"run{number}",
        "name": f"lr={lr:g}",
        "group": group,
        "job_type": "train",
        "project": "digits",
        "state": "finished",
        "seconds": 60.0 + number,
        "config": {"lr": lr, "weight_decay": [0.0, 0.1][number % 2], "optimizer": ["SGD", "AdamW"][number // 2 % 2]},
        "goals": {"val/loss": "min", "val/acc": "max"},
        "summary": {"test/acc": 1 - far / 10, "test/loss": far, "test/ece": 0.03},
        "curves": curves,
        "source": f"/runs/run-{number}.wandb",
    }
    return Record(**settings | changes)


def grid():
    """Twelve runs of two groups over four learning rates."""
    rates = [0.0003, 0.001, 0.01, 0.03]  # below and above the best one
    return [run(n, rates[n % 4], group=["small", "large"][n // 6]) for n in range(12)]


def plain():
    """Three seeds of a project without the kit's names, as Lightning logs them with ``on_step=True, on_epoch=True``."""
    return [_plain(seed) for seed in range(3)]


def _plain(seed):
    made = run(seed, group="", name=f"seed={seed}")
    found = made.curves
    found["train_loss_step"] = found.pop("train/loss")
    found["train_loss_epoch"] = found["val_loss"] = found.pop("val/loss")
    found["val_acc"] = found.pop("val/acc")
    found["train_acc"] = found.pop("train/acc")
    made.config = {"lr": 0.01, "trainer.seed": seed, "callbacks.ModelCheckpoint.monitor": None}
    made.goals, made.summary = {}, {"test_acc": 0.9 + seed / 100, "test_loss": 0.3}
    return made
