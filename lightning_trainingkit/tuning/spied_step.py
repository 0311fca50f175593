"""A training step that shows its losses, with their graphs, to a function."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall, LossSpy

__all__ = ["LabelsOutOfRangeError", "SpiedStep", "spy_on"]

See = Callable[[Tensor | None, list[LossCall], Any], Tensor | None]
_CLASS_LOSSES = (functional.cross_entropy, functional.nll_loss)


class LabelsOutOfRangeError(Exception):
    """A loss got a label that is no index of a class. On a GPU, torch would end the process.

    Args:
        loss: Name of the loss.
        classes: Number of outputs.
        least: Smallest label.
        most: Largest label.
    """

    def __init__(self, loss: str, classes: int, least: int, most: int) -> None:
        super().__init__(f"`{loss}` of {classes} classes got labels from {least} to {most}")
        self.loss, self.classes, self.least, self.most = loss, classes, least, most


class SpiedStep:
    """A training step that shows its losses to a function, which may return another loss to train on.

    It is an object, and no function, so that a copy of the module runs the step of the copy.

    Args:
        step: The bound ``training_step``.
        see: Gets the loss of the step (None if it returns none), the recorded calls of losses, and the batch.
        change: Gets the batch and returns the batch for the step. None leaves it as it is.
    """

    def __init__(self, step: Callable[..., Any], see: See, change: Callable[[Any], Any] | None = None) -> None:
        functools.update_wrapper(self, step)
        self._step, self._see, self._change = step, see, change

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step."""
        if self._change is not None:
            args = (self._change(args[0]), *args[1:])
        with _CheckedLosses() as spy:
            returned = self._step(*args, **kwargs)
        loss = returned.get("loss") if isinstance(returned, dict) else returned
        other = self._see(loss if isinstance(loss, Tensor) else None, spy.calls, args[0] if args else None)
        if other is None:
            return returned
        return {**returned, "loss": other} if isinstance(returned, dict) else other

    def __deepcopy__(self, memo: dict[int, Any]) -> "SpiedStep":
        """Copy the step alone: nobody sees what the copy does."""
        return SpiedStep(copy.deepcopy(self._step, memo), _see_nothing)


def spy_on(module: L.LightningModule, see: See, change: Callable[[Any], Any] | None = None) -> None:
    """Put a ``SpiedStep`` in the place of the training step of a copied module."""
    vars(module)["training_step"] = SpiedStep(module.training_step, see, change)


def _see_nothing(loss: Tensor | None, calls: list[LossCall], batch: Any) -> None:
    return None


class _CheckedLosses(LossSpy):
    """Check the labels before a loss is called."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _CLASS_LOSSES:
            given = inspect.signature(func).bind(*args, **(kwargs or {}))
            given.apply_defaults()
            _check_labels(
                func.__name__, **{name: given.arguments[name] for name in ("input", "target", "ignore_index")}
            )
        return super().__torch_function__(func, types, args, kwargs)


def _check_labels(loss: str, input: Tensor, target: Tensor, ignore_index: int) -> None:
    if target.is_floating_point() or not target.numel():
        return
    classes = input.shape[1] if input.dim() > 1 else input.shape[0]
    labels = target.detach()[target.detach() != ignore_index]
    if not len(labels):
        return
    least, most = torch.stack(labels.aminmax()).tolist()
    if least < 0 or most >= classes:
        raise LabelsOutOfRangeError(loss, classes, least, most)
