"""Seconds of a training step with each of several callbacks, which take turns within one fit."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from measuring import DEVICE, now
from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L

WARM_UP = 1  # rounds that are not counted


class Memory(L.loggers.logger.Logger):
    """A logger that keeps the names of what it gets, by step."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[set[str]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.seen.append(set(metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Turns(L.Callback):
    """Give the Trainer one competitor's callbacks for some steps, in a new random order in each round.

    A step lasts until the next one begins, so that loading and logging count. A competitor's start and end, from
    `setup` to `teardown`, do not.
    """

    def __init__(
        self, competitors: Mapping[str, Sequence[L.Callback]], rounds: int, draw: random.Random, steps: int
    ) -> None:
        self.competitors, self.steps = competitors, steps
        orders = [draw.sample(list(competitors), len(competitors)) for _ in range(WARM_UP + rounds)]
        self.plan = [name for order in orders for name in order]
        self.times: dict[str, list[float]] = {name: [] for name in competitors}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        turn, step = divmod(batch_idx, self.steps)
        if step:
            return
        if batch_idx:
            seconds = (now() - self.begun) / self.steps
            if turn > WARM_UP * len(self.competitors):
                self.times[self.plan[turn - 1]].append(seconds)
            for each in reversed(trainer.callbacks[1:]):
                each.on_train_end(trainer, pl_module)
                each.teardown(trainer, pl_module, "fit")
        if turn == len(self.plan):
            return
        callbacks = self.competitors[self.plan[turn]]
        trainer.callbacks[:] = [self, *callbacks]  # in place: Lightning is going through this list
        for each in callbacks:
            each.setup(trainer, pl_module, "fit")
            each.on_fit_start(trainer, pl_module)
            each.on_train_start(trainer, pl_module)
        self.begun = now()


def step_times(
    module: L.LightningModule,
    batch: tuple,
    competitors: Mapping[str, Sequence[L.Callback]],
    rounds: int,
    draw: random.Random,
    steps: int = 1,
) -> tuple[dict[str, list[float]], dict[str, set[str]]]:
    """Return the seconds of a step by competitor, one for each turn, and the names logged in every step of each."""
    turns, logger = Turns(competitors, rounds, draw, steps), Memory()
    trainer = L.Trainer(
        callbacks=[turns],
        max_epochs=1,
        accelerator="auto",
        devices=1,
        logger=logger,
        log_every_n_steps=1,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = tuple(each.to(DEVICE) for each in batch)
    trainer.fit(module, DataLoader([batch] * (steps * len(turns.plan) + 1), None))
    plan = [name for name in turns.plan for _ in range(steps)]
    logged = {
        name: set.intersection(*(seen for seen, turn in zip(logger.seen, plan, strict=False) if turn == name))
        for name in competitors
    }
    return turns.times, logged
