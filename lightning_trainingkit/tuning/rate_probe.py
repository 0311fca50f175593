"""Train at given learning rates, and keep the losses of all ranks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks._broadcast import reducer
from lightning_trainingkit.callbacks.diagnostics.step_losses import StepLosses
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.reason import detached_loss
from lightning_trainingkit.tuning.trial import stop

__all__ = ["RateProbe"]

_LOOK = 10  # batches between two looks at the losses, for which the host waits for the device
_PATIENCE = 100  # batches without an optimizer step


class RateProbe(L.Callback):
    """Set the learning rate before each optimizer step, with small weight decay, and keep the losses.

    Args:
        rates: The largest rate of a group, for each iteration.
        ends: Whether the trial ends early, from the losses up to now. It is asked every ten batches.
        weight_decay: Largest weight decay of a group.

    Attributes:
        losses: The loss of each optimizer step, the mean over its batches and over all ranks.
        optimizers: The rates of the trial's optimizers.
        notes: What was changed for the trial.
        broken: Whether weights were not finite when the module's own code raised an error.
    """

    def __init__(
        self, rates: Sequence[float], ends: Callable[[list[float]], bool] | None = None, weight_decay: float = 1e-4
    ) -> None:
        self.losses: list[float] = []
        self.optimizers: OptimizerRates
        self.broken = False
        self.notes: tuple[str, ...] = ()
        self._rates, self._ends, self._weight_decay = list(rates), ends, weight_decay
        self._recent = StepLosses()
        self._steps, self._batches, self._waited = 0, 0, 0
        self._stepped = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the first rate, and do so again before each step, after whatever the module does to its rates."""
        self.optimizers = OptimizerRates(trainer.optimizers)
        if self.optimizers.limit_decay(self._weight_decay):
            self.notes = (f"The trials had a weight decay of at most {self._weight_decay:g}.",)
        self.optimizers.set(self._rates[0])
        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, *_: Any) -> None:
        self.optimizers.set(self._rates[min(self._steps, len(self._rates) - 1)])
        self._stepped = True

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor) -> None:
        """Refuse a loss without a graph, from which no gradient comes."""
        if not loss.requires_grad:
            raise ValueError(
                f"`training_step` must return a loss with a graph, got one without. {detached_loss().advice}"
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss. A step that accumulates gradients has several batches."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, torch.Tensor):
            raise ValueError(
                f"`training_step` must return a loss for each batch, got {loss}. "
                "Return the loss that should fall, in manual optimization too: the learning rate is judged by it."
            )
        parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self._recent.add(loss.detach().float() * parts)
        self._batches += 1
        self._waited += 1
        if self._stepped:
            self._recent.end_step()
            self._steps += 1
            self._stepped, self._waited = False, 0
        last = self._steps >= len(self._rates) or self._waited >= _PATIENCE + parts
        if last or self._batches % _LOOK == 0:
            self._look(trainer, last)

    def _look(self, trainer: L.Trainer, last: bool) -> None:
        self.losses += self._recent.read(reducer(trainer))
        if self._waited >= _PATIENCE and not self.losses:
            raise ValueError(
                f"`training_step` must lead to an optimizer step, got none in {self._waited} batches. "
                "Step the optimizers more often, or accumulate fewer batches."
            )
        if last or not all(map(_finite, self.losses)) or (self._ends is not None and self._ends(self.losses)):
            stop(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Notice whether the weights had broken before: the module's own code may not bear it."""
        self.broken = not all(bool(each.isfinite().all()) for each in pl_module.parameters())


def _finite(loss: float) -> bool:
    return loss - loss == 0
