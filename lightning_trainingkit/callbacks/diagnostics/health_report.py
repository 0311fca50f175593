"""Say in words whether a training is healthy: what is wrong, where, and what to do."""

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from lightning_trainingkit._lightning import L, rank_zero_info, refuse_other_package
from lightning_trainingkit.callbacks._lightning import after_build, refuse_twice
from lightning_trainingkit.callbacks.diagnostics.findings_table import findings_table
from lightning_trainingkit.callbacks.diagnostics.first_look import rehearse_training, rehearse_validation
from lightning_trainingkit.callbacks.diagnostics.loop_checks import LoopChecks
from lightning_trainingkit.callbacks.diagnostics.recorded_verdict import health_line, record_verdict
from lightning_trainingkit.callbacks.diagnostics.training_watch import TrainingWatch
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.observation import Observation
from lightning_trainingkit.nn.diagnostics.rules import is_hopeless, judge, ranked

__all__ = ["HealthReport"]

_NO_LOSS = "No loss was seen: return it from `training_step`, or call `self.manual_backward(loss)`."


class HealthReport(L.Callback):
    """Say in words what is wrong with a training, where, and what to do. It changes nothing in the module.

    - **When**: after the first epoch, and again when a new kind of finding appears.
    - **First batches**: one training and one validation batch also run on a copy of the module, which shows the sign
      of the loss, an activation before it, and outputs that depend on other images. Random states are put back.
    - **Harmful** kinds are said only of a training whose loss does not fall as it should: after 100 steps and one
      epoch, after 1,000 steps, or at the end. A loss that is not finite counts at once.
    - **Wrong** kinds are facts of the run, such as layers in no optimizer, whatever the accuracy.
    - **Advice**: no alarm.
    - **Loggers** get the verdict as ``check.health``: W&B, CSV, TensorBoard.
    - **Ranks** have equal findings.

    Args:
        every_n_steps: Optimizer steps from look to look, at least 1. The steps 0, 1, 2, 4, ... 64 have a look too.
            After five such looks, the next one comes a quarter of the steps so far later.
        stop: Whether to end a fit that cannot recover: a loss that is not finite, or a harmful cause and a loss that
            has not fallen.
        verbose: Whether to print the table.

    Attributes:
        observation: The numbers that the findings rest on.
        findings: The findings so far, most likely cause first.
        notes: What could not be checked, and why.

    Raises:
        ValueError: If ``every_n_steps`` is below 1, or a Trainer holds two of these callbacks.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[HealthReport()], logger=False)
    """

    def __init__(self, every_n_steps: int = 50, *, stop: bool = False, verbose: bool = True) -> None:
        self.every_n_steps = _check.integer("every_n_steps", every_n_steps, "Leave it out for 50.", least=1)
        self.stop = _check.flag("stop", stop)
        self.verbose = _check.flag("verbose", verbose)
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.observation = Observation()
        self._watch: TrainingWatch | None = None  # during a fit
        self._put_back: Callable[[], None] | None = None
        self._checks = LoopChecks()
        self._certain: list[Finding] = []
        self._rehearsed = {"train": False, "validate": False}
        self._reported: set[str] = set()
        self._recorded = ""
        self._epoch_reported = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put hooks on the layers, before the module is compiled or wrapped."""
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        refuse_twice(trainer, self, "Keep one.")
        self._remove()
        self.findings, self.notes, self._certain, self._reported = [], [], [], set()
        self._epoch_reported = False
        self._recorded = ""
        self._rehearsed = {"train": False, "validate": False}
        watch = self._watch = TrainingWatch(self.every_n_steps)
        self.observation = watch.observation
        self._put_back = after_build(pl_module, lambda: watch.attach(pl_module))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare the records of gradients."""
        if self._watch is not None:
            self._watch.on_train_start(trainer, pl_module)
            self._checks.on_train_start(trainer, pl_module)
            self.notes += self._watch.notes

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Rehearse the first batch on a copy, and begin a look."""
        if self._watch is None:
            return
        if not self._rehearsed["train"]:
            self._rehearsed["train"] = True
            self._learn(*rehearse_training(trainer, pl_module, batch, self.observation))
        self._watch.on_train_batch_start()
        self._checks.look = self._watch.looking
        self._checks.on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Keep the loss."""
        if self._watch is not None:
            self._watch.on_before_backward(loss)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Record the gradients before the step."""
        if self._watch is not None:
            self._watch.on_before_optimizer_step(optimizer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss and, at a look, the update; judge at each n-th step."""
        if self._watch is None:
            return
        self._checks.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        looked = self._watch.on_train_batch_end(trainer, pl_module, outputs)
        self.observation.epochs += trainer.is_last_batch
        if looked and self._watch.step > 1 and (self._watch.step - 1) % self.every_n_steps == 0:
            self._judge(trainer, pl_module)
            if self._new_kinds():
                self._report(trainer, f"at step {self._watch.step}")
            if self.stop and trainer.strategy.broadcast(is_hopeless(self.observation, self.findings)):
                trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table after the first epoch."""
        if self._watch is not None and not self._epoch_reported:
            self._epoch_reported = True
            self._judge(trainer, pl_module)
            self._report(trainer, f"after epoch {trainer.current_epoch + 1} ({self._watch.step} steps)")

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Rehearse the first batch on a copy, and look at the layers' modes."""
        if self._watch is None:
            return
        if not self._rehearsed["validate"]:
            self._rehearsed["validate"] = True
            self._learn(*rehearse_validation(trainer, pl_module, batch))
        self._checks.on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the look."""
        if self._watch is not None:
            self._checks.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge the whole training."""
        if self._watch is None:
            return
        self.observation.final = True
        self._judge(trainer, pl_module)
        if not self.observation.losses.count:
            self.notes.append(_NO_LOSS)
        if not self._epoch_reported or self._new_kinds():
            self._report(trainer, f"at the end ({self._watch.step} steps)")
        self._record(trainer)
        self._remove()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the hooks off."""
        self._remove()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._remove()

    def __getstate__(self) -> dict[str, Any]:
        """A copy, in the middle of a fit too, watches nothing."""
        # Lightning puts `log` and `log_dict` here, which are methods of the module
        state = {name: value for name, value in vars(self).items() if not name.startswith("log")}
        return {**state, "_watch": None, "_put_back": None, "_checks": LoopChecks()}

    def _learn(self, findings: list[Finding], note: str) -> None:
        self._certain += [each for each in findings if each.kind not in {known.kind for known in self._certain}]
        if note:
            self.notes.append(note)

    def _judge(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._watch is not None
        self._watch.flush(trainer)
        planned = trainer.estimated_stepping_batches
        self.observation.progress = min(1.0, self._watch.step / planned) if 0 < planned < float("inf") else None
        certain = self._certain + self._checks.findings(trainer, pl_module, final=self.observation.final)
        found = trainer.strategy.broadcast(ranked(certain, judge(self.observation)))
        kinds = {each.kind for each in found}
        earlier = [each for each in self.findings if each.kind == "non_finite" and each.kind not in kinds]
        self.findings = [*found, *earlier]

    def _new_kinds(self) -> set[str]:
        """Kinds above advice that no table has named yet."""
        return {each.kind for each in self.findings if each.level != "advice"} - self._reported

    def _report(self, trainer: L.Trainer, when: str) -> None:
        self._reported |= self._new_kinds()
        self._record(trainer)
        if not self.verbose:
            return
        if self.findings or self.notes:
            if trainer.is_global_zero:
                Console().print(findings_table(self.findings, when, self.notes))
        else:
            rank_zero_info(f"HealthReport {when}: nothing wrong.")

    def _record(self, trainer: L.Trainer) -> None:
        line = health_line(self.findings)
        if line != self._recorded:
            self._recorded = line
            record_verdict(trainer, "health", line)

    def _remove(self) -> None:
        if self._put_back is not None:
            self._put_back()
        if self._watch is not None:
            self._watch.remove()
        self._checks.remove()
        self._watch = self._put_back = None
