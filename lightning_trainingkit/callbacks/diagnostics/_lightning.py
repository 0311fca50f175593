"""Run a module's training or validation step on a copy, without logging, optimizer steps or other effects."""

import copy
import inspect
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_trainingkit._lightning import DummyLogger, L
from lightning_trainingkit.callbacks._lightning import is_sharded
from lightning_trainingkit.callbacks.diagnostics.stand_ins import Nothing, take_hooks_off

__all__ = ["Rehearsal"]

_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")
_QUIET = ("log", "log_dict", "print", "toggle_optimizer", "untoggle_optimizer", "clip_gradients")
T = TypeVar("T")


class Rehearsal:
    """A copy of a module whose steps have no effect outside of it. As a context manager, it frees the copy's memory.

    - **Trainer**: the copy sees a copy of the Trainer, without loggers and with optimizers that do nothing.
    - **Logging** does nothing.
    - **manual_backward** fills the gradients of the copy, and keeps the loss.
    - **all_gather** repeats what this rank has.

    Args:
        trainer: The Trainer.
        pl_module: The module. It is left as it is.

    Attributes:
        module: The copy.
        losses: What the last step minimised, with the graphs: one loss, or several in manual optimization.

    Raises:
        TypeError: If a part of the module is a plain function that would run the module itself, or if it is sharded.
    """

    def __init__(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_sharded(trainer):
            raise TypeError("the strategy shards the module")
        self.losses: list[Tensor] = []
        self._precision = trainer.precision_plugin
        self.module: L.LightningModule = copy.deepcopy(pl_module)
        if pl_module._compiler_ctx:  # Lightning has put compiled steps of the module itself here
            for name in _STEPS:
                vars(self.module).pop(name, None)
        take_hooks_off(self.module)
        self.module.zero_grad()
        twins = dict(zip(pl_module.parameters(), self.module.parameters(), strict=True))
        quiet = _quiet_trainer(trainer, twins)
        for each in self.module.modules():
            if isinstance(each, L.LightningModule):
                each._trainer = quiet
                _silence(each, quiet, self.losses)

    def __enter__(self) -> "Rehearsal":
        return self

    def __exit__(self, *args: Any) -> None:
        # A module is often part of a cycle, which the garbage collector may free much later.
        self.losses.clear()
        for layer in list(self.module.modules()):
            if not isinstance(layer, torch.jit.ScriptModule):
                vars(layer).clear()

    def step(self, name: str, batch: Any) -> None:
        """Run ``training_step`` or ``validation_step`` on a batch, as Trainer runs it, but never compiled.

        Args:
            name: Name of the step.
            batch: The batch, on the module's device.
        """
        self.losses.clear()
        training = name == "training_step"
        function = getattr(self.module, name)
        with (
            torch.compiler.set_stance("force_eager"),
            self._precision.train_step_context() if training else self._precision.val_step_context(),
        ):
            returned = function(*_arguments(function, batch))
        loss = returned.get("loss") if isinstance(returned, dict) else returned
        if training and self.module.automatic_optimization and isinstance(loss, Tensor):
            self.losses.append(loss)


def _arguments(function: Any, batch: Any) -> list[Any]:
    """The batch, its index and the index of its loader, as many as the step takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return [batch, 0]
    return [batch, 0, 0][: sum(each.kind is not each.VAR_KEYWORD for each in parameters)]


def _quiet_trainer(trainer: L.Trainer, twins: dict[nn.Parameter, nn.Parameter]) -> L.Trainer:
    """A copy of a Trainer without loggers, whose optimizers and schedules do nothing, and which saves nothing."""
    quiet = _shallow_copy(trainer)
    quiet.loggers = [DummyLogger()]
    vars(quiet)["save_checkpoint"] = _nothing
    connector = vars(quiet)["_accelerator_connector"] = _shallow_copy(trainer._accelerator_connector)
    strategy = connector.strategy = _shallow_copy(trainer.strategy)
    optimizers: list[Any] = [
        Nothing(param_groups=[_copied_group(group, twins) for group in each.param_groups])
        for each in trainer.optimizers
    ]
    strategy._optimizers = strategy._lightning_optimizers = optimizers
    strategy.lr_scheduler_configs = [
        replace(each, scheduler=_quiet_schedule(each.scheduler)) for each in trainer.lr_scheduler_configs
    ]
    return quiet


def _shallow_copy(value: T) -> T:
    """A copy that no hook of the class takes part in."""
    copied = object.__new__(type(value))
    vars(copied).update(vars(value))
    return copied


def _copied_group(group: dict[str, Any], twins: dict[nn.Parameter, nn.Parameter]) -> dict[str, Any]:
    return {**group, "params": [twins.get(parameter, parameter) for parameter in group["params"]]}


def _quiet_schedule(schedule: Any) -> Any:
    rates = [float(group["lr"]) for group in schedule.optimizer.param_groups]
    return Nothing(get_last_lr=lambda: list(rates), last_epoch=getattr(schedule, "last_epoch", 0))


def _silence(module: L.LightningModule, trainer: L.Trainer, losses: list[Tensor]) -> None:
    """Put what does nothing in the place of a module's methods that log or optimize."""

    def manual_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(loss)
        loss.backward(*args, **{**kwargs, "retain_graph": True})  # type: ignore[no-untyped-call]

    def optimizers(use_pl_optimizer: bool = True) -> Any:
        return trainer.optimizers[0] if len(trainer.optimizers) == 1 else trainer.optimizers

    def all_gather(data: Any, *args: Any, **kwargs: Any) -> Any:
        return tree_map(lambda value: _gathered(value, module.device, trainer.world_size), data)

    methods = dict.fromkeys(_QUIET, _nothing)
    vars(module).update(methods, manual_backward=manual_backward, optimizers=optimizers, all_gather=all_gather)


def _gathered(value: Any, device: Any, ranks: int) -> Tensor:
    tensor = torch.as_tensor(value, device=device)
    return tensor if ranks == 1 else torch.stack([tensor] * ranks)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None
