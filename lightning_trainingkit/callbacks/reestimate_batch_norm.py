"""Estimate BatchNorm statistics for averaged weights."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import nn

from lightning_trainingkit._lightning import (
    CombinedLoader,
    DeepSpeedStrategy,
    FSDPStrategy,
    L,
    ModelParallelStrategy,
    is_overridden,
    isolate_rng,
    rank_zero_warn,
    refuse_other_package,
)
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.weights.batch_norm_statistics import (
    estimate_batch_norm,
    first_element,
    reestimate_batch_norm,
    running_batch_norms,
)
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["ReestimateBatchNorm"]


class ReestimateBatchNorm(L.Callback):
    """Estimate the BatchNorm statistics of averaged weights from training data, at the end of a fit.

    ``EMAWeightAveraging``, ``WeightAveraging`` and ``StochasticWeightAveraging`` leave statistics of other weights, or
    averages of them. One pass over training batches sets the mean and variance of all values that reach each BatchNorm
    (``reestimate_batch_norm``), equal on all ranks. Weights, modes and global random numbers stay.

    - **Order**: the callback moves itself to the end of ``trainer.callbacks``, after all callbacks that set weights.
    - **Files** written before keep the old statistics: ``trainer.test(module)`` uses the new ones,
      ``trainer.test(ckpt_path="best")`` the old ones. ``trainer.save_checkpoint(path)`` saves the new ones.
    - **Frozen BatchNorms** (in eval mode) and interrupted fits keep their statistics.
    - **Data**: as in training, with its augmentation, on a fixed seed.
    - **Early check**: the first training batch passes through once before training, so that a wrong ``target`` fails
      early. A ``fast_dev_run`` runs the whole pass on its few batches.

    Args:
        batches: Number of training batches on each rank, at least 1; by default one epoch.
        target: Name of the submodule to call with the first element of the batch (as
            ``torch.optim.swa_utils.update_bn`` calls a model), such as ``"net"``; by default the module itself.

    Raises:
        ValueError: If ``target`` names no submodule. If the target has no BatchNorm with running statistics, or cannot
            be called with a batch's first element. If ``batches`` is None and the length of an epoch is unknown. If the
            strategy shards the model.

    Example:
        >>> import lightning as L
        >>> from lightning.pytorch.callbacks import EMAWeightAveraging
        >>> trainer = L.Trainer(callbacks=[EMAWeightAveraging(), ReestimateBatchNorm()], logger=False)

    References:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
        arXiv:1803.05407, section 3.2.
    """

    def __init__(self, batches: int | None = None, *, target: str | None = None) -> None:
        if batches is not None:
            batches = _check.integer("batches", batches, "Leave it out for a whole epoch.", least=1)
        self.batches = batches
        self.target = target
        self._tried = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Move to the end of the callbacks."""
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                f"`strategy` must keep the whole model on every rank, got {type(trainer.strategy).__name__}. "
                "Use ddp, or leave ReestimateBatchNorm out."
            )
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        trainer.callbacks = [each for each in callbacks if each is not self] + [self]  # type: ignore[attr-defined]
        self._tried = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the target has a BatchNorm with running statistics."""
        try:
            running_batch_norms(self._model(pl_module))
        except ValueError as error:
            raise ValueError(f"{error} ReestimateBatchNorm is for models with BatchNorm.") from error

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the number of batches is finite."""
        if self.batches is None and trainer.num_training_batches == float("inf"):
            raise ValueError(
                "`batches` must be given where the length of an epoch is unknown, got None. Try batches=100."
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Try the first batch, so that an error after training shows before training."""
        if self._tried:
            return
        self._tried = True
        model = self._model(pl_module)
        try:
            with isolate_rng(), trainer.precision_plugin.forward_context():
                found = estimate_batch_norm(model, running_batch_norms(model), [batch])
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"`target` must take the first element of a training batch, got {type(first_element(batch)).__name__} "
                f"for {type(model).__name__}: {error!r}. {_candidates(pl_module)}"
            ) from error
        if not found.moments:
            raise ValueError(
                f"`target` must call a BatchNorm, got {type(model).__name__}, whose forward calls none. "
                f"{_candidates(pl_module)}"
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Estimate the statistics if the fit trained on any batch."""
        mark_trained(pl_module)
        model, limit = self._model(pl_module), min(self.batches or float("inf"), trainer.num_training_batches)
        if trainer.train_dataloader is None or not 0 < limit < float("inf"):
            return  # nothing was trained
        layers = [layer for layer in running_batch_norms(model).values() if layer.training]
        if not layers:
            rank_zero_warn("ReestimateBatchNorm has changed nothing: every BatchNorm is in eval mode (frozen).")
            return
        device = pl_module.device
        pl_module.to(trainer.strategy.root_device)  # Lightning has moved the module to the CPU
        try:
            with isolate_rng(), trainer.precision_plugin.forward_context():
                torch.manual_seed(trainer.global_rank)
                reestimate_batch_norm(model, _batches(trainer, pl_module, int(limit)), layers=layers)
        finally:
            pl_module.to(device)

    def _model(self, pl_module: L.LightningModule) -> nn.Module:
        try:
            return pl_module if self.target is None else pl_module.get_submodule(self.target)
        except AttributeError as error:
            raise ValueError(
                f"`target` must name a submodule of {type(pl_module).__name__}, got {self.target!r}. "
                f"{_candidates(pl_module)}"
            ) from error


def _candidates(pl_module: L.LightningModule) -> str:
    names = dict.fromkeys(name.split(".")[0] for name in running_batch_norms(pl_module))
    return f"Submodules with BatchNorm: {', '.join(names)}."


def _batches(trainer: L.Trainer, pl_module: L.LightningModule, limit: int) -> Iterator[Any]:
    """Yield training batches as ``training_step`` gets them."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    hook = "on_before_batch_transfer"
    owner = datamodule if datamodule is not None and is_overridden(hook, datamodule) else pl_module
    loader = CombinedLoader(trainer.train_dataloader, "max_size_cycle")
    for batch, _, _ in islice(loader, limit):
        batch = owner.on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), 0)
        yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)
