"""A classifier of images for any model."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_trainingkit._lightning import L, OptimizerLRScheduler
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.losses import multiclass_hinge
from lightning_trainingkit.modules.build import (
    build_model,
    check_name,
    check_options,
    optimizer_class,
)
from lightning_trainingkit.modules.first_batch import check_target, first_forward, unpack
from lightning_trainingkit.modules.schedule import Schedule
from lightning_trainingkit.nn.structure.head import replace_head
from lightning_trainingkit.nn.weights.decay import decay_groups

__all__ = ["ImageClassifier"]

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "hinge": multiclass_hinge}


class ImageClassifier(L.LightningModule):
    """Train, validate, test and predict with any model that maps images to logits.

    Logs ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss`` and ``test/acc`` once per epoch: exact
    means over all images and ranks. Norms and biases have no weight decay.

    - **A batch** is a pair of images ``(N, C, H, W)`` and class indices ``(N,)``, or probabilities
      ``(N, num_classes)``, as mixup makes them.
    - **Schedules**: ``warmup_cosine`` (options ``warmup``, share of rising steps, and ``final``, share of ``lr`` at the
      end), ``cosine``, ``cyclic_cosine`` (option ``cycles``, 5 by default, for ``SnapshotCheckpoint``),
      ``one_cycle``, ``polynomial``, ``step``, ``multistep``, ``exponential``, ``plateau``, and any class of
      ``torch.optim.lr_scheduler``.
    - **A length that is left out** becomes the number of training steps, for ``step`` a third of it. The schedule then
      advances by step. Other schedules advance by epoch, unless ``interval: step`` is among their options.

    Args:
        model: A module that returns logits ``(N, num_classes)``, or a name: ``small_resnet``, a classifier of
            torchvision (``resnet18``) or of timm (``timm/resnet18``).
        num_classes: Number of classes.
        model_options: Further arguments of a model given by name, such as ``in_channels: 3`` of ``small_resnet``.
        loss: ``cross_entropy``, or ``hinge``: the lecture's multiclass hinge loss, which needs class indices.
        optimizer: Class of ``torch.optim``, spelled as there.
        lr: Learning rate at its highest. 1e-3 suits AdamW, 0.1 SGD.
        weight_decay: Weight decay. 0.01 suits AdamW, 5e-4 SGD.
        optimizer_options: Further arguments of the optimizer, such as ``momentum: 0.9``.
        schedule: Name of a schedule, or None for a constant rate.
        schedule_options: Arguments of the schedule, and ``interval`` (``step`` or ``epoch``). ``monitor`` names the
            metric that ``plateau`` follows, ``val/loss`` by default; a score such as ``val/acc`` needs ``mode: max``.

    Raises:
        ValueError: If a name is unknown or an option does not fit. If a first batch has labels out of range, or images
            that the model cannot take.
        TypeError: If a batch is no pair or its labels are not integers.
        ImportError: If timm is asked for and not installed.

    Example:
        >>> import torch
        >>> module = ImageClassifier("small_resnet", num_classes=10, optimizer="SGD", lr=0.1, weight_decay=5e-4)
        >>> module(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        *,
        model_options: dict[str, Any] | None = None,
        loss: str = "cross_entropy",
        optimizer: str = "AdamW",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        optimizer_options: dict[str, Any] | None = None,
        schedule: str | None = "warmup_cosine",
        schedule_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        num_classes = _check.integer("num_classes", num_classes, "Count the classes from 1.", least=2)
        lr = _check.number("lr", lr, "Try 0.001 (YAML takes 1.0e-3 for a number, and 1e-3 for a string).", least=0)
        weight_decay = _check.number("weight_decay", weight_decay, "Try 0.01, or 0 for none.", least=0)
        if not isinstance(model, str | nn.Module):
            raise TypeError(f"`model` must be a module or a name, got {model!r}. Try 'small_resnet'.")
        options = {
            "model_options": model_options,
            "optimizer_options": optimizer_options,
            "schedule_options": schedule_options,
        }
        for name, given in options.items():
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"`{name}` must be a dict or None, got {given!r}. Write {{'name': value}}.")
        self.save_hyperparameters(ignore=["model"] if isinstance(model, nn.Module) else [])
        if isinstance(model, nn.Module) and model_options:
            raise ValueError(f"`model_options` must be left out with a built model, got {model_options}. Name a model.")
        check_name("loss", loss, _LOSSES, " or ".join(map(repr, _LOSSES)))
        self.num_classes = num_classes
        self.loss = loss
        self.lr = lr
        self.weight_decay = weight_decay
        self.optimizer_options = dict(optimizer_options or {})
        self._optimizer = optimizer_class(optimizer)
        check_options("optimizer_options", self._optimizer, self.optimizer_options, "params", "lr", "weight_decay")
        self._schedule = None if schedule is None else Schedule.by_name(schedule, schedule_options or {})
        self.model = build_model(model, num_classes, model_options or {}) if isinstance(model, str) else model
        self._metrics = nn.ModuleDict()
        for stage in ("train", "val", "test"):
            # No host synchronisation: NaN checks off, arguments checked on the first batch only.
            self._metrics[f"{stage}_loss"] = MeanMetric(nan_strategy="disable")
            self._metrics[f"{stage}_acc"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self._checked: set[str] = set()

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        logits: Tensor = self.model(x)
        return logits

    def setup(self, stage: str) -> None:
        """Check the first batch of each stage again: the data may be new."""
        self._checked.clear()

    def on_fit_start(self) -> None:
        """Raise for an empty training set, of which Lightning only warns."""
        self.trainer.fit_loop.setup_data()
        if self.trainer.num_training_batches == 0 and self.trainer.limit_train_batches != 0:
            raise ValueError("`train_dataloader` must give at least one batch, got none. Is the training set empty?")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and the accuracy."""
        self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and the accuracy."""
        self._step(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return class probabilities ``(N, num_classes)`` of a batch. Targets in it are ignored."""
        x = batch[0] if isinstance(batch, list | tuple) else batch
        return self._logits(x, "predict").softmax(dim=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of classes of the head, which ``replace_head`` may have changed."""
        checkpoint["num_classes"] = self.num_classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replace the head if the checkpoint has another number of classes. The weights are loaded after this."""
        num_classes = checkpoint.get("num_classes", self.num_classes)
        if num_classes == self.num_classes:
            return
        own, saved = self.state_dict(), checkpoint["state_dict"]
        changed = {name.rpartition(".")[0] for name in own.keys() & saved if own[name].shape != saved[name].shape}
        if len(changed) > 1:  # another architecture: loading the weights will raise
            return
        if changed:
            replace_head(self, num_classes)
        self.num_classes = num_classes

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and the schedule. The optimizer holds frozen parameters too, for later phases."""
        groups = decay_groups(self, self.weight_decay, include_frozen=True)
        optimizer = self._optimizer(groups, lr=self.lr, **self.optimizer_options)  # type: ignore[call-arg]
        if self._schedule is None:
            return optimizer
        steps = float(self.trainer.estimated_stepping_batches) if self._schedule.length else 0.0
        return {"optimizer": optimizer, "lr_scheduler": self._schedule.config(optimizer, self.lr, steps)}

    def _step(self, batch: Any, stage: str) -> Tensor:
        x, target = unpack(batch)
        if stage not in self._checked:
            check_target(target, self.num_classes)
        logits = self._logits(x, stage)
        soft = target.ndim == 2
        if soft and self.loss == "hinge":
            raise ValueError("`loss='hinge'` must be given class indices, got probabilities. Use loss='cross_entropy'.")
        loss = _LOSSES[self.loss](logits, target if soft else target.long())
        self._log(stage, loss.detach(), logits.detach(), target.argmax(dim=1) if soft else target)
        return loss

    def _logits(self, x: Tensor, stage: str) -> Tensor:
        if stage in self._checked:
            return cast(Tensor, self(x))
        logits: Tensor = first_forward(self, self.model, x, self.num_classes)
        self._checked.add(stage)
        return logits

    def _log(self, stage: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        # One loss per image and no `weight`: MeanMetric drops weights where NaN checks are off (torchmetrics #3434).
        for name, values in {"loss": (loss.expand(len(labels)),), "acc": (logits, labels)}.items():
            metric = cast(Metric, self._metrics[f"{stage}_{name}"])
            metric.update(*values)
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, batch_size=len(labels))
