"""A training step that shows its losses, with their graphs, to a function."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall, LossSpy

__all__ = ["DetachedLossError", "LabelsOutOfRangeError", "SpiedStep", "spy_on"]

See = Callable[[Tensor | None, list[LossCall], Any], Tensor | None]
_CLASS_LOSSES = (functional.cross_entropy, functional.nll_loss)


class LabelsOutOfRangeError(Exception):
    """A loss got labels that are no indices of classes. On a GPU, torch would end the process.

    Args:
        loss: Name of the loss.
        classes: Number of outputs.
        least: Smallest label.
        most: Largest label.
    """

    def __init__(self, loss: str, classes: int, least: int, most: int) -> None:
        super().__init__(f"`{loss}` of {classes} classes got labels from {least} to {most}")
        self.loss, self.classes, self.least, self.most = loss, classes, least, most

    @property
    def is_wrong(self) -> bool:
        """Whether a label is out of range."""
        return self.least < 0 or self.most >= self.classes


class DetachedLossError(Exception):
    """The training step returned a loss without a graph, from which no gradient comes."""


class SpiedStep:
    """A training step that shows its losses to a function, which may return another loss to train on.

    It is an object, and no function, so that a copy of the module runs the step of the copy.

    Args:
        step: The bound ``training_step``.
        see: Gets the loss of the step (None if it returns none), the recorded calls of losses, and the batch.
        change: Gets the batch and returns the batch for the step. None leaves it as it is.
        around: Makes a context in which the step runs.

    Raises:
        DetachedLossError: In automatic optimization, if the loss of the step has no graph.
        LabelsOutOfRangeError: If the step fails, and a label was out of range.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        see: See,
        change: Callable[[Any], Any] | None = None,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        functools.update_wrapper(self, step)
        self._step, self._see, self._change, self._around = step, see, change, around
        self._labels: dict[str, LabelsOutOfRangeError] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step."""
        if self._change is not None:
            args = (self._change(args[0]), *args[1:])
        try:
            with self._around(), _CheckedLosses(self._labels) as spy:
                returned = self._step(*args, **kwargs)
        except Exception:  # the module's own code, such as a metric
            self.check_labels()
            raise
        loss = returned.get("loss") if isinstance(returned, dict) else returned
        automatic = getattr(getattr(self._step, "__self__", None), "automatic_optimization", True)
        if isinstance(loss, Tensor) and not loss.requires_grad and automatic and torch.is_grad_enabled():
            raise DetachedLossError
        other = self._see(loss if isinstance(loss, Tensor) else None, spy.calls, args[0] if args else None)
        if other is None:
            return returned
        return {**returned, "loss": other} if isinstance(returned, dict) else other

    def check_labels(self) -> None:
        """Raise LabelsOutOfRangeError if a label was out of range in any batch so far."""
        for found in self._labels.values():
            if found.is_wrong:
                raise found

    def __deepcopy__(self, memo: dict[int, Any]) -> "SpiedStep":
        """Copy the step alone: nobody sees what the copy does."""
        return SpiedStep(copy.deepcopy(self._step, memo), _see_nothing)


def spy_on(module: L.LightningModule, see: See, **options: Any) -> SpiedStep:
    """Put a ``SpiedStep`` in the place of the training step of a copied module."""
    step = vars(module)["training_step"] = SpiedStep(module.training_step, see, **options)
    return step


def _see_nothing(loss: Tensor | None, calls: list[LossCall], batch: Any) -> None:
    return None


class _CheckedLosses(LossSpy):
    """Put labels that are out of range into the range, and note the smallest and the largest label."""

    def __init__(self, labels: dict[str, LabelsOutOfRangeError]) -> None:
        super().__init__()
        self._labels = labels

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _CLASS_LOSSES:
            call = inspect.signature(func).bind(*args, **(kwargs or {}))
            call.apply_defaults()
            given = call.arguments
            target = self._in_range(func.__name__, given["input"], given["target"], given["ignore_index"])
            if target is not given["target"]:
                given["target"] = target
                args, kwargs = call.args, call.kwargs
        return super().__torch_function__(func, types, args, kwargs)

    def _in_range(self, loss: str, scores: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        classes = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
        counts = target.detach() != ignore_index
        if target.is_floating_point() or not counts.any():
            return target
        least, most = torch.stack(target.detach()[counts].aminmax()).tolist()
        found = self._labels.setdefault(loss, LabelsOutOfRangeError(loss, classes, least, most))
        found.least, found.most = min(found.least, least), max(found.most, most)
        if least >= 0 and most < classes:
            return target
        return torch.where(counts, target.clamp(0, classes - 1), target)
