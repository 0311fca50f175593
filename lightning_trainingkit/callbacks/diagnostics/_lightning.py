"""Run a module's training or validation step on a copy, without logging, optimizer steps or other effects."""

import copy
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit._lightning import DummyLogger, L

__all__ = ["Rehearsal"]

_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")
_KIT = __name__.partition(".")[0]


class Rehearsal:
    """A copy of a module whose steps have no effect outside of it.

    The copy is of the user's class and knows the Trainer. It logs nothing, its ``manual_backward`` only collects the
    losses, and its optimizers do nothing.

    Args:
        trainer: The Trainer.
        pl_module: The module. It is left as it is.

    Attributes:
        module: The copy.
        losses: What the last step minimised, with the graphs: one loss, or several in manual optimization.

    Raises:
        TypeError: If a forward of the module is a plain function, which would run the module itself.
    """

    def __init__(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.losses: list[Tensor] = []
        self._trainer = trainer
        self.module: L.LightningModule = copy.deepcopy(pl_module)
        self.module.__class__ = _quiet_class(type(pl_module), self.losses, len(trainer.optimizers))
        self.module._trainer = trainer
        if pl_module._compiler_ctx:  # Lightning has put compiled steps of the module itself here
            for name in _STEPS:
                vars(self.module).pop(name, None)
        for name, layer in self.module.named_modules():
            if any(isinstance(vars(layer).get(step), FunctionType) for step in _STEPS):
                raise TypeError(f"the forward of {name or 'the module'} was replaced by a function")
            for hooks in (layer._forward_hooks, layer._forward_pre_hooks):
                for key in [key for key, hook in hooks.items() if str(hook.__module__).startswith(_KIT)]:
                    del hooks[key]
        self.module.zero_grad()

    def step(self, name: str, batch: Any) -> None:
        """Run ``training_step`` or ``validation_step`` on a batch, as Trainer runs it, but never compiled.

        Args:
            name: Name of the step.
            batch: The batch, on the module's device.
        """
        self.losses.clear()
        precision = self._trainer.precision_plugin
        training = name == "training_step"
        function = getattr(self.module, name)
        with (
            torch.compiler.set_stance("force_eager"),
            precision.train_step_context() if training else precision.val_step_context(),
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
    return [batch, 0, 0][: len(parameters)]


def _quiet_class(base: type, losses: list[Tensor], optimizers: int) -> type:
    """Make a subclass of the user's class whose logging and optimization do nothing."""
    nothing, logger = _Nothing(), DummyLogger()

    def manual_backward(self: Any, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(loss)

    def several(self: Any, *args: Any, **kwargs: Any) -> Any:
        return [nothing] * optimizers if optimizers > 1 else nothing

    def silent(self: Any, *args: Any, **kwargs: Any) -> None:
        return None

    quiet = ("log", "log_dict", "print", "toggle_optimizer", "untoggle_optimizer", "clip_gradients")
    members: dict[str, Any] = dict.fromkeys(quiet, silent)
    members |= {"manual_backward": manual_backward, "optimizers": several, "lr_schedulers": several}
    members |= {"logger": property(lambda self: logger), "loggers": property(lambda self: [logger])}
    return type(base.__name__, (base,), {**members, "__module__": base.__module__, "__qualname__": base.__qualname__})


class _Nothing:
    """An optimizer or scheduler that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter([self])

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: Any) -> None:
        pass
