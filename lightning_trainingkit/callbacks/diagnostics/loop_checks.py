"""Check what the training loop does: modes, gradients, optimizers and schedules."""

from functools import reduce
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import BaseFinetuning, L
from lightning_trainingkit.callbacks._lightning import is_compiled, is_sharded
from lightning_trainingkit.callbacks.diagnostics.scheduler_check import SchedulerCheck
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.gradient_clearing import ClearingFact, GradientClearing, find_uncleared
from lightning_trainingkit.nn.diagnostics.layer_calls import CallFact, LayerCalls
from lightning_trainingkit.nn.diagnostics.modes_in_use import find_eval_mode, find_training_mode, parts_in_eval_mode
from lightning_trainingkit.nn.diagnostics.norm_state import NormFact, norm_facts
from lightning_trainingkit.nn.diagnostics.normalisation_in_use import find_normalisation_off, uncalled_norms
from lightning_trainingkit.nn.diagnostics.parameter_watch import ParameterFact, ParameterWatch
from lightning_trainingkit.nn.diagnostics.untrained import find_untrained

__all__ = ["LoopChecks"]

_FIRST = 5  # batches that are always looked at
_VALIDATION = 2  # batches of each validation that are looked at


class _Facts(NamedTuple):
    """The facts of one rank."""

    parameters: dict[str, ParameterFact]
    clearing: list[ClearingFact]
    training: dict[str, CallFact]
    validation: dict[str, CallFact]
    norms: dict[str, NormFact]
    parts: dict[str, str]
    looks: int
    schedules: list[Finding]


class LoopChecks:
    """Finds faults of a training loop, whatever the accuracy. Its methods are called as the hooks of a callback.

    - **Sampled steps**: modes, layer calls and gradients are read in batches for which ``look`` is True, and in the
      first five. Gradient clearing is watched in all batches.
    - **Sharded models**: only modes, normalisation and schedules are checked.
    """

    def __init__(self) -> None:
        self.look = False
        self.batches = self.epochs = 0
        self._training, self._validation = LayerCalls(), LayerCalls()
        self._parts: dict[str, str] = {}
        self._parameters: ParameterWatch | None = None
        self._clearing: GradientClearing | None = None
        self._schedules: SchedulerCheck | None = None
        self._compiled = self._active = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin: forget an earlier fit, and put hooks on parameters and optimizers."""
        self.remove()
        self.batches = self.epochs = 0
        self._active = True
        self._training, self._validation, self._parts = LayerCalls(), LayerCalls(), {}
        self._compiled = is_compiled(pl_module)
        self._schedules = SchedulerCheck(trainer, pl_module)
        if not is_sharded(trainer):
            self._parameters = ParameterWatch(pl_module, trainer.optimizers, skip=(Metric,))
            self._clearing = GradientClearing(trainer.optimizers)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin to look at a batch."""
        if self._parameters is not None:
            self._parameters.look = self._looks()
        if self._looks():
            self._training.begin(pl_module, hooks=not self._compiled)
            if self._parameters is not None:
                self._parameters.watch()
            if self._clearing is not None:
                self._clearing.watch()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        if self._looks():
            self._training.end()
            self._parts |= parts_in_eval_mode(pl_module, _trained(trainer))
        self.batches += 1
        self.epochs += trainer.is_last_batch
        if self._parameters is not None:
            self._parameters.batches = self.batches

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to look at the first batches of a validation."""
        if batch_idx < _VALIDATION and not trainer.sanity_checking and self._active:
            self._validation.begin(pl_module, hooks=not self._compiled)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch."""
        self._validation.end()

    def findings(self, trainer: L.Trainer, pl_module: L.LightningModule, final: bool) -> list[Finding]:
        """Return the findings so far, equal on all ranks. Every rank must call it. Waits for the device.

        Args:
            trainer: The Trainer.
            pl_module: The trained module.
            final: Whether the fit is over.
        """
        if self._schedules is None:
            return []
        schedules = self._schedules.findings(trainer, pl_module, batches=self.batches, epochs=self.epochs, final=final)
        facts = _over_ranks(
            _Facts(
                {} if self._parameters is None else self._parameters.facts(),
                [] if self._clearing is None else self._clearing.facts(),
                self._training.facts(),
                self._validation.facts(),
                norm_facts(pl_module, _trained(trainer)),
                self._parts,
                self._training.looks,
                schedules,
            )
        )
        # Lightning's finetuning adds layers to the optimizer later. Their BatchNorms are trainable from the start.
        joins = not final and any(isinstance(each, BaseFinetuning) for each in trainer.callbacks)  # type: ignore[attr-defined]
        uncalled = uncalled_norms(facts.norms, facts.training, facts.parameters, looks=facts.looks)
        left_out = [name for name in facts.parameters if name.rpartition(".")[0] in uncalled]
        return [
            *find_uncleared(facts.clearing),
            *([] if joins else find_untrained(facts.parameters, epochs=self.epochs, final=final, leave_out=left_out)),
            *find_eval_mode(facts.training, facts.parts),
            *find_training_mode(pl_module, facts.validation),
            *find_normalisation_off(
                facts.norms,
                facts.training,
                facts.validation,
                looks=facts.looks,
                uncalled=uncalled,
                parts=facts.parts,
            ),
            *facts.schedules,
        ]

    def _looks(self) -> bool:
        return self.look or self.batches < _FIRST

    def remove(self) -> None:
        """Take off all hooks. The facts stay, so that ``findings`` still answers."""
        self._active = False
        self._training.remove()
        self._validation.remove()
        if self._parameters is not None:
            self._parameters.remove()
        if self._clearing is not None:
            self._clearing.remove()


def _trained(trainer: L.Trainer) -> set[nn.Parameter]:
    """The parameters that require a gradient and are in an optimizer."""
    held = (p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"])
    return {parameter for parameter in held if parameter.requires_grad}


class _Mergeable(Protocol):
    def merge(self, other: Any) -> Any: ...


F = TypeVar("F", bound=_Mergeable)


def _over_ranks(facts: _Facts) -> _Facts:
    """Join the facts of all ranks. Modules, optimizers and schedules are alike on all of them."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return facts
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, facts)
    first = everyone[0]
    return _Facts(
        parameters=_merge([each.parameters for each in everyone]),
        clearing=first.clearing,
        training=_merge([each.training for each in everyone]),
        validation=_merge([each.validation for each in everyone]),
        norms=first.norms,
        parts=first.parts,
        looks=min(each.looks for each in everyone),
        schedules=first.schedules,
    )


def _merge(facts: list[dict[str, F]]) -> dict[str, F]:
    def join(one: dict[str, F], other: dict[str, F]) -> dict[str, F]:
        return {name: one[name].merge(other[name]) if name in other else one[name] for name in one}

    return reduce(join, facts)
