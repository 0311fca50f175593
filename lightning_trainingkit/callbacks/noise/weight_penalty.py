"""Penalise the size of chosen weights: L1, L2 or elastic net."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_trainingkit._lightning import BaseFinetuning, L, refuse_other_package
from lightning_trainingkit.callbacks._lightning import is_sharded, refuse_twice
from lightning_trainingkit.callbacks.noise.after_step import AfterStep
from lightning_trainingkit.callbacks.noise.penalty_checks import (
    decayed_weights,
    listed,
    refuse_double_decay,
    refuse_optimizer,
)
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.penalty import (
    add_penalty_gradient_,
    check_strength,
    penalty_value,
    proximal_step_,
)
from lightning_trainingkit.nn.weights.penalised import penalised_parameters

__all__ = ["WeightPenalty"]


class WeightPenalty(L.Callback):
    """Add ``l1 |W| + l2 W^2`` to what a training minimises, summed over chosen weights.

    The lecture's elastic net ``lambda (beta W^2 + |W|)`` is ``l1 = lambda, l2 = lambda beta``. With a mean squared
    error it is scikit-learn's ``ElasticNet`` with ``alpha = lambda (1/2 + beta)`` and ``l1_ratio = 1 / (1 + 2 beta)``.

    - **Gradient** (default): added once a step, after AMP's unscaling and before clipping, as if the loss held the
      penalty.
    - **Proximal**: after each step, with the group's rate, weights move towards zero by ``rate l1`` and stop there.
      They are divided by ``1 + 2 rate l2``. Like AdamW's decay it is decoupled.
    - **Frozen weights** and others without a gradient are left alone.
    - **Logged**: ``penalty/value``, ``penalty/loss`` (the step's own) and ``penalty/loss_with``, their sum.

    Args:
        l1: Strength of ``|W|``, at least 0. It is per element, so that small values such as 1e-5 matter.
        l2: Strength of ``W^2``, at least 0. SGD's ``weight_decay`` is twice this number.
        layers: Pattern of ``fnmatch`` over the names of layers and parameters, or a list of patterns. All by default.
        proximal: Whether to make a proximal step instead of adding a gradient. L1 then makes exact zeros.
        norms_and_biases: Whether to penalise norms, biases and vectors too, which `decay_groups` spares.
        verbose: Whether to print the chosen weights.

    Raises:
        TypeError: If the optimizer is LBFGS, or fused beside a gradient scaler. At a step, if gradients are sparse.
        ValueError: If a strength is negative, or both are 0. At the start of the fit, if a pattern matches no weight,
            if nothing chosen is trained, if the optimizer's weight decay acts on the same weights as ``l2``, or if
            the module optimizes by itself or is sharded.

    Example:
        >>> import lightning as L
        >>> penalty = WeightPenalty(l1=1e-5, l2=1e-4, layers=["model.layer*", "model.fc"])
        >>> trainer = L.Trainer(callbacks=[penalty], logger=False, accelerator="cpu")

    References:
        Zou and Hastie, "Regularization and variable selection via the elastic net", JRSS B 2005.
        Parikh and Boyd, "Proximal Algorithms", 2014.
    """

    def __init__(
        self,
        l1: float = 0.0,
        l2: float = 0.0,
        layers: str | Iterable[str] | None = None,
        proximal: bool = False,
        norms_and_biases: bool = False,
        verbose: bool = True,
    ) -> None:
        self.l1, self.l2 = check_strength(l1, l2)
        if not self.l1 and not self.l2:
            raise ValueError("`l1` or `l2` must be above 0, got 0 for both. For no penalty, leave the callback out.")
        if not isinstance(layers, str | Iterable | None):
            raise TypeError(f"`layers` must be a pattern or a list of patterns, got {layers!r}. Write ['net.*'], say.")
        self._patterns = ["*"] if layers is None else [layers] if isinstance(layers, str) else list(layers)
        if not self._patterns or not all(isinstance(each, str) and each for each in self._patterns):
            raise ValueError(f"`layers` must hold patterns, got {layers!r}. Leave it out for all layers.")
        self.layers = layers if layers is None or isinstance(layers, str) else self._patterns
        self.proximal = _check.flag("proximal", proximal)
        self.norms_and_biases = _check.flag("norms_and_biases", norms_and_biases)
        self.verbose = _check.flag("verbose", verbose)
        self._named: dict[nn.Parameter, str] = {}  # the penalised parameters and their names
        self._watches: list[AfterStep] = []
        self._value: Tensor | None = None  # of the step in this batch
        self._backwards = 0  # since the last step

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse Trainers and modules for which the penalty would be wrong."""
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        refuse_twice(trainer, self, "List all layers in one of them.")
        if is_sharded(trainer):
            raise ValueError(
                f"`strategy` must keep the whole model on every rank, got {type(trainer.strategy).__name__}. "
                "Use ddp, or leave WeightPenalty out."
            )
        if not pl_module.automatic_optimization:
            raise ValueError(
                "`automatic_optimization` must be True, got False: WeightPenalty cannot know which steps are of the "
                "loss. Add functional.penalty_value to the loss instead."
            )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the weights and check the optimizer, which all exist now."""
        self._clear()
        for optimizer in trainer.optimizers:
            refuse_optimizer(trainer, optimizer, proximal=self.proximal)
        named = penalised_parameters(pl_module, self._patterns, norms_and_biases=self.norms_and_biases)
        self._named = {parameter: name for name, parameter in named.items()}
        held = {
            each for optimizer in trainer.optimizers for group in optimizer.param_groups for each in group["params"]
        }
        trained = {name: each for each, name in self._named.items() if each in held and each.requires_grad}
        opened_later = any(
            hasattr(each, "first_trainable") or isinstance(each, BaseFinetuning)
            for each in trainer.callbacks  # type: ignore[attr-defined]
        )
        if not trained and not opened_later:
            raise ValueError(
                f"`layers` must name a weight that the optimizer trains, got {self._patterns}, which matches "
                f"{listed(list(named))}: all frozen, or not in the optimizer. Set requires_grad=True."
            )
        for optimizer in trainer.optimizers:
            refuse_double_decay(optimizer, self._named, self.l2)
        if self.verbose and trainer.is_global_zero:
            decayed = [each for optimizer in trainer.optimizers for each in decayed_weights(optimizer, self._named)]
            later = len(self._named) - len(trained) if opened_later else 0
            Console().print(self._description(trained, decayed, later), markup=False, highlight=False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Follow the optimizer's steps."""
        if self.proximal:
            self._watches = [AfterStep(each, partial(self._shrink, each)) for each in trainer.optimizers]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Forget the batch before, and check groups that a checkpoint or a callback has changed."""
        if batch_idx == 0:
            for optimizer in trainer.optimizers:
                refuse_double_decay(optimizer, self._named, self.l2)
        self._value = None
        for watch in self._watches:
            watch.start_batch()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the batches whose gradients a step adds up."""
        self._backwards += 1

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Compute the penalty of the weights that the loss has seen, and add its gradient."""
        share = self._backwards / trainer.accumulate_grad_batches  # the last steps of an epoch may have fewer batches
        self._backwards = 0
        active = [each for group in self._active(optimizer) for each in group]
        if not active:  # frozen, or a batch without a loss
            return
        with torch.no_grad():
            self._value = penalty_value(active, self.l1, self.l2)
        if not self.proximal:
            gradients = [_dense(each, self._named) for each in active]
            add_penalty_gradient_(gradients, active, share * self.l1, share * self.l2)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the penalty, and the loss without and with it, of a batch that ended with a step."""
        if self._value is None:
            return
        values = {"penalty/value": self._value}
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            own = loss.detach() * trainer.accumulate_grad_batches  # Lightning has divided it by this number
            values |= {"penalty/loss": own, "penalty/loss_with": own + self._value}
        pl_module.log_dict(values, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the optimizer as it was."""
        self._clear()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the optimizer as it was."""
        self._clear()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the optimizer as it was."""
        self._clear()

    def _clear(self) -> None:
        for watch in self._watches:
            watch.remove()
        self._named, self._watches, self._value, self._backwards = {}, [], None, 0

    def _active(self, optimizer: Optimizer) -> list[list[nn.Parameter]]:
        """The penalised parameters that have a gradient, by group of the optimizer."""
        return [
            [each for each in group["params"] if each.grad is not None and each in self._named]
            for group in optimizer.param_groups
        ]

    def _shrink(self, optimizer: Optimizer) -> None:
        for group, active in zip(optimizer.param_groups, self._active(optimizer), strict=True):
            proximal_step_(active, group["lr"], self.l1, self.l2)

    def _description(self, trained: Mapping[str, nn.Parameter], decayed: Sequence[str], later: int) -> str:
        parts = [f"{name}={value:g}" for name, value in (("l1", self.l1), ("l2", self.l2)) if value]
        how = "proximal steps" if self.proximal else "gradients"
        count = sum(each.numel() for each in trained.values())
        beside = f" The optimizer's weight decay acts on {len(decayed)} of them too." if decayed else ""
        beside += f" {later} more join when they train." if later else ""
        return (
            f"WeightPenalty: {' and '.join(parts)} by {how} on {len(trained)} weights with {count:,} elements: "
            f"{listed(list(trained))}.{beside}"
        )


def _dense(parameter: nn.Parameter, named: Mapping[nn.Parameter, str]) -> Tensor:
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse:
        raise TypeError(
            f"`{named[parameter]}` must have a dense gradient, got a sparse one. "
            "Use proximal=True, build the embedding with sparse=False, or name other layers."
        )
    return gradient
