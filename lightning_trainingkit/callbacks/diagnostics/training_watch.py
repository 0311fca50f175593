"""Observe a training for the health report: the loss of each step, and a look inside at some steps."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks._broadcast import reducer
from lightning_trainingkit.callbacks.diagnostics.step_losses import StepLosses
from lightning_trainingkit.nn.diagnostics.activation_statistics import ActivationRecorder
from lightning_trainingkit.nn.diagnostics.equal_units import spread_between_units
from lightning_trainingkit.nn.diagnostics.gradient_statistics import GradientRecorder
from lightning_trainingkit.nn.diagnostics.observation import Look, Observation
from lightning_trainingkit.nn.structure.names import plain_name

__all__ = ["TrainingWatch", "next_look"]

_PATIENCE = 64  # batches without a loss or without a step of an optimizer, after which each batch counts as a step
_EARLY = (0, 1, 2, 4, 8, 16, 32, 64)


def next_look(step: int, every_n_steps: int) -> int:
    """The step of the look after one at a multiple of ``every_n_steps``: the next multiple, and later a quarter more.

    So the number of looks grows with the logarithm of the steps.

    Example:
        >>> looks = [50]
        >>> while looks[-1] < 1000:
        ...     looks.append(next_look(looks[-1], 50))
        >>> looks
        [50, 100, 150, 200, 250, 350, 450, 600, 750, 950, 1200]
    """
    return math.ceil(max(step + every_n_steps, 1.25 * step) / every_n_steps) * every_n_steps


class TrainingWatch:
    """Fill an ``Observation`` during a fit. Its methods are called by the hooks of the same names.

    Args:
        every_n_steps: Optimizer steps from look to look, after the first ones.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.observation = Observation()
        self.step = 0
        self.looking = False
        self._stepped, self._waited = False, 0
        self._recorded: list[GradientRecorder] = []
        self._rates: list[float] = []
        self.every_n_steps = self._due = every_n_steps
        self.notes: list[str] = []
        self._handles: list[Any] = []
        self.activations: ActivationRecorder | None = None
        self._no_layer = ""
        self._gradients: dict[int, GradientRecorder] = {}
        self._losses = StepLosses()
        self._parts: list[Tensor] = []

    def attach(self, pl_module: L.LightningModule) -> None:
        """Put hooks on the layers that the module has now, until ``remove``."""
        self.remove()
        self.activations, self._no_layer = None, ""
        try:
            self.activations = ActivationRecorder(pl_module, windows=5)
            self.activations.attach()
        except (TypeError, ValueError) as error:  # no known layer, or a quantised one
            reason = (
                error
                if isinstance(error, TypeError)
                else "the module has no activation, linear or convolutional layer."
            )
            self._no_layer = f"No layer was looked at: {reason}"

    def remove(self) -> None:
        """Take the hooks off the module and the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self.activations is not None:
            self.activations.remove()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare a recorder for each optimizer."""
        if self._no_layer:
            self.notes.append(self._no_layer)
        names = {parameter: plain_name(name) for name, parameter in pl_module.named_parameters()}
        self.observation.resumed = trainer.global_step > 0
        layers = pl_module.named_modules()
        self.observation.dropout = {
            plain_name(name): layer.p for name, layer in layers if isinstance(layer, _DropoutNd)
        }
        self.observation.alone = len(trainer.optimizers) == 1
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        momenta = [group.get("momentum") or group.get("betas", (0.0,))[0] for group in groups]
        self.observation.momentum = max(map(float, momenta), default=None)
        decays = [float(group.get("weight_decay") or 0.0) for group in groups]
        self.observation.weight_decay = max(decays, default=0.0)
        self.observation.eps = max((float(group["eps"]) for group in groups if "eps" in group), default=None)
        self.observation.clip = trainer.gradient_clip_val
        for optimizer in trainer.optimizers:
            parts = [each for group in optimizer.param_groups for each in group["params"] if each.requires_grad]
            parameters = {names.get(each, f"parameter {number}"): each for number, each in enumerate(parts)}
            try:
                self._gradients[id(optimizer)] = GradientRecorder(parameters)
            except (TypeError, ValueError) as error:  # no parameter, a lazy one, or a sharded one
                self.notes.append(f"No gradient was looked at: {error}")
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))

    def on_train_batch_start(self) -> None:
        """Begin a look if this step has one."""
        self.looking = self.step in _EARLY or self.step >= self._due
        if self.activations is not None:
            self.activations.recording = self.looking
        self._parts.clear()

    def on_before_backward(self, loss: Tensor) -> None:
        """Keep the loss, for a training step that returns none."""
        self._parts.append(loss.detach())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Record the gradients before the step."""
        self._stepped = True
        if self.looking and not self._rates:  # after the step, a schedule may have changed them
            self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        recorder = self._gradients.get(id(optimizer))
        if self.looking and recorder is not None and recorder not in self._recorded:
            recorder.record_gradients()
            self._recorded.append(recorder)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A step without a closure: manual optimization with the plain optimizer, of which Lightning tells nobody.
        if len(args) < 2 and kwargs.get("closure") is None:
            self.on_before_optimizer_step(optimizer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> bool:
        """Record the loss and, at a look, the updates. Return whether a look has ended."""
        if self.activations is not None:
            self.activations.recording = False
        self._keep_loss(trainer, outputs)
        patience = _PATIENCE + trainer.accumulate_grad_batches
        if not (self._stepped and self._losses.pending) and self._waited < patience:
            self._waited += 1
            self._forget_step()
            return False  # gradients accumulate, or the batch is skipped
        self._stepped, self._waited = False, 0
        self._losses.end_step()
        if self._losses.full:
            self.flush(trainer)
        looked = self.looking
        if looked:
            for recorder in self._recorded:
                recorder.record_update()
            self._recorded.clear()
            self.look(trainer, pl_module)
            self._rates = []
            if self.step >= self._due:
                self._due = next_look(self._due, self.every_n_steps)
        self.step += 1
        self.looking = False
        return looked

    def _forget_step(self) -> None:
        """A step without a loss does not count."""
        self._stepped = False
        for recorder in self._recorded:
            recorder.discard()
        self._recorded.clear()

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read all recorders. The host waits for the device here."""
        self.flush(trainer)
        gradients = {name: each for part in self._gradients.values() for name, each in part.summaries().items()}
        trained = {plain_name(name): each for name, each in pl_module.named_parameters() if each.requires_grad}
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        reduce = reducer(trainer)
        self.observation.looks.append(
            Look(
                step=self.step,
                loss=self.observation.losses.latest[-1] if self.observation.losses.count else float("nan"),
                activations={} if self.activations is None else self.activations.summaries(reduce),
                gradients=gradients,
                spreads=spread_between_units(trained),
                rates=self._rates or [float(group["lr"]) for group in groups],
            )
        )
        if self.activations is not None:
            self.activations.reset()
        for recorder in self._gradients.values():
            recorder.reset()

    def flush(self, trainer: L.Trainer) -> None:
        """Move the losses to the host, as means over ranks."""
        self.observation.losses.extend(self._losses.read(reducer(trainer)))

    def _keep_loss(self, trainer: L.Trainer, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        automatic = trainer.lightning_module.automatic_optimization
        if isinstance(loss, Tensor):
            loss = loss.detach()
            if not automatic:
                loss = loss.clone()
            elif trainer.accumulate_grad_batches > 1:
                loss = loss * trainer.accumulate_grad_batches  # Lightning has divided it
        elif self._parts:
            self.observation.alone &= len(self._parts) == 1
            loss = torch.stack([part.sum() for part in self._parts]).sum()
        if isinstance(loss, Tensor):
            self._losses.add(loss)
