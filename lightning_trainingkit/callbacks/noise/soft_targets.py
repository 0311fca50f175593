"""Soft targets: class probabilities in the place of class indices, and the check that a training step takes them."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["checked_step", "probabilities"]

_CURE = "Use targets='pair', which calls the step with hard targets"
_CONVERSIONS = ("int", "long", "short", "to", "type", "type_as")
_METRICS = ("torchmetrics.classification", "torchmetrics.functional.classification")


def probabilities(labels: Tensor, num_classes: int | None) -> Tensor:
    """Return class indices ``(N,)`` as probabilities ``(N, C)``, and other targets as they are."""
    if labels.is_floating_point() or labels.ndim != 1 or num_classes is None:
        return labels
    return one_hot(labels.long(), num_classes).float()


def checked_step(step: Callable[[Tensor], Any], soft: Tensor) -> Any:
    """Run the step on the first batch with soft targets.

    Args:
        step: Calls the step with targets.
        soft: The soft targets.

    Returns:
        What the step returns.

    Raises:
        TypeError: If the step fails, if a classification metric gets the soft targets, or if they are compared with
            classes or converted to them: the result would be wrong.
    """
    if not soft.is_floating_point():  # pasted masks are hard
        return step(soft)
    try:
        return step(soft.as_subclass(_Watched))
    except torch.cuda.OutOfMemoryError:
        raise
    except _HardTargetsError as error:
        raise TypeError(f"`targets` must be 'pair' {error}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        raise TypeError(
            f"`targets` must be 'pair' where `training_step` takes hard targets, got 'soft', and the step failed with "
            f"targets {tuple(soft.shape)} in {soft.dtype}: {error}. {_CURE}."
        ) from error


class _HardTargetsError(Exception):
    """No TypeError: Python would take a TypeError of ``==`` for "not equal"."""


class _Watched(Tensor):
    """Soft targets that raise where a step uses them as hard ones. Results are plain tensors, but for views."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.compiler.is_compiling():
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        _refuse_metrics()
        _refuse_classes(func, args)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if func.__name__ in _CONVERSIONS and isinstance(result, Tensor) and not result.is_floating_point():
                raise _HardTargetsError(_of_classes("converts targets to classes"))
            if not isinstance(result, Tensor) or result.layout != torch.strided:
                return result
            memory = [each.untyped_storage().data_ptr() for each in args if isinstance(each, cls)]
            return result.as_subclass(cls) if result.untyped_storage().data_ptr() in memory else result


def _refuse_metrics() -> None:
    frame, name = sys._getframe(), ""
    while (caller := frame.f_back) is not None:
        frame = caller
        if str(frame.f_globals.get("__name__")).startswith(_METRICS):
            name = type(frame.f_locals["self"]).__name__ if "self" in frame.f_locals else frame.f_code.co_name
    if name:
        raise _HardTargetsError(
            f"beside {name}, got 'soft': the metric takes hard targets and would be wrong without an error. {_CURE}, "
            "or give the metric target.argmax(1)."
        )


def _refuse_classes(func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    others = [each for each in args if isinstance(each, Tensor) and not isinstance(each, _Watched)]
    if func.__name__ in ("eq", "__eq__", "ne", "__ne__") and any(
        each.ndim and not each.is_floating_point() for each in others
    ):
        raise _HardTargetsError(_of_classes("compares classes with targets"))


def _of_classes(what: str) -> str:
    return f"where `training_step` {what}, got 'soft': all would be wrong. {_CURE}, or take target.argmax(1)."
