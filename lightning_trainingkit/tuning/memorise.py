"""Train on the sample of step 2 until it is learnt by heart."""

import math
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall
from lightning_trainingkit.tuning.first_losses import known_part, labels_in
from lightning_trainingkit.tuning.on_sample import OnSample
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.regularisation_off import switch_off_decay
from lightning_trainingkit.tuning.sample import Sample
from lightning_trainingkit.tuning.scores import hits
from lightning_trainingkit.tuning.trial import Data, stop

__all__ = ["Memorise"]

_DENSE = 0.99  # right predictions that are enough where an example has many


class Memorise(OnSample):
    """Train on the sample until all is right, the loss is not finite, or the steps are used up.

    Args:
        sample: The sample.
        max_steps: Largest number of batches.
        chance: The loss of outputs that say nothing, None where it is unknown.
        floor: Share of the first loss, or of chance, that is low enough where no class is predicted.
        known_alone: Whether to train on the known losses, without penalties.
        factor: Factor of the learning rates.
        thaw: Whether to train frozen parameters too.

    Attributes:
        steps: The loss of each batch.
        losses: Mean loss of each epoch.
        accuracies: Share of right predictions in each epoch. Empty where no classes are predicted.
        reached: Whether the sample was learnt.
        rate: The learning rate of the largest group.
        optimizers: Number of optimizers.
    """

    def __init__(
        self,
        sample: Sample,
        max_steps: int,
        *,
        chance: float | None = None,
        floor: float = 0.1,
        known_alone: bool = False,
        factor: float = 1.0,
        thaw: bool = False,
    ) -> None:
        super().__init__(sample)
        self.max_steps, self.chance, self.floor = max_steps, chance, floor
        self.steps: list[float] = []
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.reached = False
        self.rate, self.optimizers = 0.0, 1
        self._known_alone, self._factor, self._thaw = known_alone, factor, thaw
        self._epoch: list[float] = []
        self._right = self._all = 0
        self._dense = False

    def prepare(self, module: L.LightningModule, data: Data) -> Data:
        """Thaw the module, if asked."""
        if self._thaw:
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    parameter.requires_grad_()
        return super().prepare(module, data)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the rates, and take the weight decay off."""
        self.off += switch_off_decay(trainer.optimizers)
        if trainer.lr_scheduler_configs:
            self.off.append("the learning-rate schedule")
        if self._thaw and trainer.optimizers:
            held = {
                id(each)
                for optimizer in trainer.optimizers
                for group in optimizer.param_groups
                for each in group["params"]
            }
            missing = [each for each in pl_module.parameters() if id(each) not in held]
            if missing:
                trainer.optimizers[0].add_param_group({"params": missing, **_like(trainer.optimizers[0])})
        rates = OptimizerRates(trainer.optimizers)
        self.rate, self.optimizers = rates.largest * self._factor, len(trainer.optimizers)
        rates.set(self.rate)

    def see(self, loss: Tensor | None, calls: list[LossCall], batch: Any) -> Tensor | None:
        """Keep the loss, and count the right predictions."""
        assert self.module is not None
        known = None
        if self._known_alone or loss is None:
            known = known_part(loss, calls, automatic=self.module.automatic_optimization)
        if len(self.steps) <= self.number:
            value = known[0] if known is not None else loss
            if value is not None:
                self.steps.append(float(value.detach().sum()))
                self._epoch.append(self.steps[-1])
            labels = labels_in(batch)
            for call in calls:
                counted = hits(call, labels, _used(call, loss if self.module.automatic_optimization else None))
                if counted is not None:
                    self._right, self._all = self._right + counted[0], self._all + counted[1]
                    self._dense |= counted[1] > len(call.input)
        return known[0] if known is not None and self._known_alone else None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the epoch at its end, and stop in time."""
        self.number += 1
        over = trainer.is_last_batch and self._end_epoch()
        over |= self.number >= self.max_steps or (bool(self.steps) and not math.isfinite(self.steps[-1]))
        if over:
            if self._epoch:
                self._end_epoch()
            stop(trainer)

    def _end_epoch(self) -> bool:
        loss, right, everything = fmean(self._epoch) if self._epoch else math.nan, self._right, self._all
        self._epoch, self._right, self._all = [], 0, 0
        self.losses.append(loss)
        if everything:
            self.accuracies.append(right / everything)
            self.reached = self.accuracies[-1] >= (_DENSE if self._dense else 1.0)
        else:
            self.reached = self.base > 0 and 0 <= loss <= self.floor * self.base
        return self.reached

    @property
    def base(self) -> float:
        """The loss that the training must get below: the first one, or chance if it is smaller."""
        first = self.steps[0] if self.steps else math.nan
        return min(first, self.chance) if self.chance and math.isfinite(first) else first

    @property
    def last(self) -> float:
        """Mean loss of the last epoch."""
        return self.losses[-1] if self.losses else math.nan

    @property
    def left(self) -> float:
        """Share of the loss that is left, from the last epoch. Infinite for a loss that is not finite."""
        if not math.isfinite(self.last) or not self.base:
            return math.inf
        return self.last / self.base if self.base > 0 else 1 - (self.base - self.last) / abs(self.base)

    @property
    def rises(self) -> bool:
        """Whether the loss ends above its start and above chance, or is not finite."""
        highest = max(self.steps[0], self.chance or self.steps[0]) if self.steps else math.nan
        return not math.isfinite(self.last) or self.last > highest + 0.2 * abs(highest)

    @property
    def course(self) -> str:
        """How the loss went, in words."""
        if not math.isfinite(self.last):
            return f"the loss is not finite after {len(self.steps)} steps"
        return f"the loss goes from {self.steps[0]:.3g} to {self.last:.3g} in {len(self.steps)} steps"


def _used(call: LossCall, loss: Tensor | None) -> Tensor | None:
    """Which losses of a call without reduction take part in the loss of the step, whose mask leaves others out."""
    if loss is None or not loss.requires_grad or not call.result.dim() or not call.result.requires_grad:
        return None
    (factor,) = torch.autograd.grad(loss.sum(), [call.result], retain_graph=True, allow_unused=True)
    return None if factor is None else factor != 0


def _like(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {name: group[name] for name in ("lr", "initial_lr", "max_lr") if name in group}
