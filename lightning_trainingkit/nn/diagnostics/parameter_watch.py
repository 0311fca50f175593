"""Observe which parameters get gradients, and which gradients reach an optimizer's step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_trainingkit.nn.structure.names import plain_name

__all__ = ["ParameterFact", "ParameterWatch", "after_accumulation", "is_nonzero"]

_SAMPLE = 1024  # elements of a parameter whose values are compared
_ARRIVALS = 3  # gradients that are checked for zeros outside of sampled steps


@dataclass(frozen=True)
class ParameterFact:
    """The gradients of one trainable parameter since the start.

    Args:
        batches: Batches since it was first seen trainable.
        in_optimizer: Whether an optimizer holds it.
        eval_mode: Whether its module and that module's submodules were in eval mode at the start of each looked batch.
        arrived: Whether a backward pass reached it.
        nonzero: Whether a backward pass gave it a gradient with a value other than zero.
        applied: Whether it had such a gradient in an optimizer's step.
        steps: Steps of its optimizers.
        changed: Whether its values differ from the first ones. Only a sample of 1024 elements is compared.
    """

    batches: int
    in_optimizer: bool
    eval_mode: bool
    arrived: bool
    nonzero: bool
    applied: bool
    steps: int
    changed: bool

    def merge(self, other: "ParameterFact") -> "ParameterFact":
        """Join the facts of two ranks."""
        return ParameterFact(
            max(self.batches, other.batches),
            self.in_optimizer or other.in_optimizer,
            self.eval_mode and other.eval_mode,
            self.arrived or other.arrived,
            self.nonzero or other.nonzero,
            self.applied or other.applied,
            max(self.steps, other.steps),
            self.changed or other.changed,
        )


class _Record:
    """The record of one parameter, with flags on its device."""

    def __init__(self, parameter: nn.Parameter, batch: int) -> None:
        self.parameter, self.since = parameter, batch
        self.first = _sample(parameter).clone()
        self.arrivals = 0
        self.nonzero: Tensor | None = None
        self.applied: Tensor | None = None
        self.known_applied = self.was_training = False


class ParameterWatch:
    """Watches the trainable parameters of a module by hooks on the parameters and on the optimizers.

    The hook of a parameter is removed once its gradient was seen in an optimizer's step. So a healthy training soon
    runs without these hooks.

    Args:
        module: The trained module.
        optimizers: Its optimizers.
        skip: Types of submodules whose parameters are left out, such as metrics.
    """

    def __init__(
        self, module: nn.Module, optimizers: Iterable[Optimizer], skip: tuple[type[nn.Module], ...] = ()
    ) -> None:
        self.look = True
        self.batches = 0
        self._module, self._optimizers, self._skip = module, list(optimizers), skip
        self._records: dict[nn.Parameter, _Record] = {}
        self._handles: dict[nn.Parameter, Any] = {}  # of the parameters whose gradient was not seen in a step
        self._steps = dict.fromkeys(self._optimizers, 0)
        self._step_hooks = [optimizer.register_step_post_hook(self._after_step) for optimizer in self._optimizers]

    def watch(self) -> None:
        """Put hooks on parameters that have become trainable, and read the modes. Call it before a looked batch."""
        for owner in self._module.modules():
            training = any(each.training for each in owner.modules())
            for parameter in owner.parameters(recurse=False):
                if parameter.requires_grad and parameter not in self._records and not is_lazy(parameter):
                    self._records[parameter] = record = _Record(parameter, self.batches)
                    self._handles[parameter] = after_accumulation(parameter, _arrival(self, record))
                if parameter in self._records:
                    self._records[parameter].was_training |= training

    def remove(self) -> None:
        """Remove all hooks."""
        for handle in (*self._handles.values(), *self._step_hooks):
            handle.remove()
        self._handles, self._step_hooks = {}, []

    def facts(self) -> dict[str, ParameterFact]:
        """Return the facts of the parameters that are trainable now, by name. Waits for the device."""
        self._read_flags()
        steps: dict[nn.Parameter, int] = {}
        for optimizer, count in self._steps.items():
            for parameter in _held(optimizer):
                steps[parameter] = steps.get(parameter, 0) + count
        skipped = {p for each in self._module.modules() if isinstance(each, self._skip) for p in each.parameters()}
        facts = {}
        for name, parameter in self._module.named_parameters():
            record = self._records.get(parameter)
            if record is not None and parameter.requires_grad and parameter not in skipped:
                facts[plain_name(name)] = ParameterFact(
                    batches=self.batches - record.since,
                    in_optimizer=parameter in steps,
                    eval_mode=not record.was_training,
                    arrived=record.arrivals > 0,
                    nonzero=record.known_applied or bool(record.nonzero),
                    applied=record.known_applied,
                    steps=steps.get(parameter, 0),
                    changed=record.known_applied or not torch.equal(_sample(parameter), record.first),
                )
        return facts

    def _read_flags(self) -> None:
        open_records = [record for record in self._records.values() if record.applied is not None]
        by_device: dict[torch.device, list[_Record]] = {}
        for record in open_records:
            by_device.setdefault(record.parameter.device, []).append(record)
        for records in by_device.values():  # one transfer for each device
            flags = torch.stack([record.applied for record in records if record.applied is not None]).tolist()
            for record, applied in zip(records, flags, strict=True):
                record.applied = None
                if applied:
                    record.known_applied = True
                    self._handles.pop(record.parameter).remove()

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._steps[optimizer] += 1
        if self._handles and (self.look or self._steps[optimizer] <= _ARRIVALS):
            for parameter in _held(optimizer):
                if parameter in self._handles and parameter.grad is not None:
                    record = self._records[parameter]
                    record.applied = _or(record.applied, is_nonzero(parameter.grad))


def after_accumulation(parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> Any:
    """Call a hook each time that a backward pass has added to a parameter's gradient."""
    return parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]


def _arrival(watch: ParameterWatch, record: _Record) -> Callable[[Tensor], None]:
    # A plain function: a module that is copied in the middle of a step then copies no watch.
    @torch.no_grad()
    def hook(parameter: Tensor) -> None:
        record.arrivals += 1
        if parameter.grad is not None and (watch.look or record.arrivals <= _ARRIVALS):
            record.nonzero = _or(record.nonzero, is_nonzero(parameter.grad))

    return hook


def _held(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def is_nonzero(gradient: Tensor) -> Tensor:
    """Whether any value of a gradient is not zero, on its device."""
    values = gradient._values() if gradient.is_sparse else gradient
    return (values != 0).any()


def _or(before: Tensor | None, now: Tensor) -> Tensor:
    return now if before is None else before | now


def _sample(parameter: nn.Parameter) -> Tensor:
    """At most 1024 elements of a parameter, evenly spread."""
    flat = parameter.detach().reshape(-1)
    return flat if flat.numel() <= _SAMPLE else flat[:: -(-flat.numel() // _SAMPLE)]
