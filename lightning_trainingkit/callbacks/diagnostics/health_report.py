"""Say in words whether a training is healthy: what is wrong, where, and what to do."""

from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit._lightning import L, rank_zero_info, refuse_other_package
from lightning_trainingkit.callbacks._lightning import after_build, refuse_twice
from lightning_trainingkit.callbacks.diagnostics.first_look import rehearse_training
from lightning_trainingkit.callbacks.diagnostics.training_watch import TrainingWatch
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.observation import Observation
from lightning_trainingkit.nn.diagnostics.rules import judge

__all__ = ["HealthReport"]


class HealthReport(L.Callback):
    """Report in words whether the training is healthy."""

    def __init__(self, every_n_steps: int = 50, *, stop: bool = False, verbose: bool = True) -> None:
        self.every_n_steps = _check.integer("every_n_steps", every_n_steps, "Leave it out for the default.", least=1)
        self.stop = _check.flag("stop", stop)
        self.verbose = _check.flag("verbose", verbose)
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self._watch: TrainingWatch | None = None
        self._first: list[Finding] = []
        self._rehearsed = False

    @property
    def observation(self) -> Observation:
        assert self._watch is not None
        return self._watch.observation

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        refuse_twice(trainer, self, "Keep one.")
        self.findings, self._first, self.notes = [], [], []
        self._rehearsed = False
        if self._watch:
            self._watch.remove()
        self._watch = TrainingWatch(pl_module, self.every_n_steps)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._watch.on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._rehearsed:
            self._rehearsed = True
            self._first, why = rehearse_training(trainer, pl_module, batch, self.observation)
            if why:
                self.notes.append(why)
        self._watch.on_train_batch_start(trainer, pl_module)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self._watch.on_before_backward(loss)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._watch.on_before_optimizer_step(optimizer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._watch.on_train_batch_end(trainer, pl_module, outputs)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._watch.flush(trainer)
        self.findings = [*self._first, *judge(self.observation)]

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._watch:
            self._watch.remove()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._watch:
            self._watch.remove()
