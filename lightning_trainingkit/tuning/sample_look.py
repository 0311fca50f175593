"""A look at the sample of step 2, without training."""

from typing import Any

from torch import Tensor

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall
from lightning_trainingkit.tuning.first_losses import known_part, make_no_steps
from lightning_trainingkit.tuning.on_sample import OnSample
from lightning_trainingkit.tuning.sample import Sample
from lightning_trainingkit.tuning.trial import stop

__all__ = ["Look"]


class Look(OnSample):
    """Run the first batch twice, the same read again, and the second batch; no optimizer step.

    Args:
        sample: The sample.

    Attributes:
        batches: The batches.
        scores: What the first loss got, for each batch.
        targets: Its targets.
        losses: The loss of each step.
        parts: The known part of each loss, and of outputs that say nothing.
        is_alone: Whether the known losses are the only ones that were seen.
    """

    looks = True

    def __init__(self, sample: Sample) -> None:
        super().__init__(sample)
        self.batches: list[Any] = []
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.losses: list[float] = []
        self.parts: list[tuple[float, float]] = []
        self.is_alone = True

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the optimizers from changing anything."""
        make_no_steps(trainer)

    def see(self, loss: Tensor | None, calls: list[LossCall], batch: Any) -> Tensor | None:
        """Keep what the losses got."""
        if len(self.batches) > self.number:
            return None  # an optimizer that runs the step several times for a batch
        assert self.module is not None
        self.batches.append(batch)
        self.is_alone &= all(call.target is not None for call in calls)
        first = next((call for call in calls if call.target is not None), None)
        if first is not None and first.target is not None:
            self.scores.append(first.input.detach().float().cpu())
            self.targets.append(first.target.detach().cpu())
        known = known_part(loss, calls, automatic=self.module.automatic_optimization)
        if known is not None:
            self.parts.append((float(known[0].detach()), float(known[1])))
        if loss is not None:
            self.losses.append(float(loss.detach().sum()))
        elif known is not None:
            self.losses.append(float(known[0].detach()))
        return None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End after the last batch."""
        self.number += 1
        if trainer.is_last_batch:
            stop(trainer)

    @property
    def penalty(self) -> float:
        """What the step adds to its known losses, if it is the same for all batches, as penalties of weights are."""
        if not self.is_alone or len(self.parts) < len(self.losses) or len(self.losses) < 2:
            return 0.0
        rests = [loss - part for loss, (part, _) in zip(self.losses, self.parts, strict=True)]
        one, other = rests[0], rests[-1]
        differ = abs(one - other) > 1e-4 * abs(one) or self.parts[0][0] == self.parts[-1][0]
        return 0.0 if differ or abs(one) < 0.01 * abs(self.parts[0][0]) else one
