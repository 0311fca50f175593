"""Observe how normalisation layers and layers that draw random numbers are called in a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from lightning_trainingkit.nn.structure.names import plain_name
from lightning_trainingkit.nn.structure.randomness import layers_that_draw
from lightning_trainingkit.nn.structure.tracing import NORMS

__all__ = ["CallFact", "LayerCalls", "SMALL_MOMENTUM", "USUAL_EPS", "layers_with_modes"]

USUAL_EPS = 1e-3  # TensorFlow's. Up to it, a small variance is the fault, not `eps`
SMALL_MOMENTUM = 1e-2  # EfficientNet's. Down to it, a short training is the reason, not the momentum


@dataclass(frozen=True)
class CallFact:
    """The calls of one layer in the looked steps of one stage.

    Args:
        training: Looked steps that called it in training mode only.
        evaluating: Looked steps that called it in eval mode only.
        eval_streak: The last looked steps in a row of these.
        switched: Looked steps that called it in training mode, with eval mode before and after the step.
        moving: Calls in training mode with a momentum other than 0.
        samples: Largest number of samples in a call.
        values: Largest number of values that one mean was taken over, in a call in training mode.
        variance: Median over channels of the variance of its input, in the last call in training. Only measured for a
            large ``eps`` or a small momentum, on a few samples.
    """

    training: int = 0
    evaluating: int = 0
    eval_streak: int = 0
    switched: int = 0
    moving: int = 0
    samples: int = 0
    values: int = 0
    variance: float | None = None

    @property
    def called(self) -> bool:
        """Whether any looked step called it."""
        return self.training + self.evaluating > 0

    def merge(self, other: "CallFact") -> "CallFact":
        """Join the facts of two ranks."""
        counts = {
            name: max(getattr(self, name), getattr(other, name))
            for name in ("training", "evaluating", "switched", "moving", "samples", "values")
        }
        streak = min(self.eval_streak, other.eval_streak)
        return CallFact(**counts, eval_streak=streak, variance=self.variance if self.called else other.variance)


class _Calls:
    """The calls of one layer, in this step and in all looked steps."""

    def __init__(self) -> None:
        self.modes: set[bool] = set()
        self.before = False
        self.training = self.evaluating = self.streak = self.switched = self.moving = self.samples = self.values = 0
        self.variance: Tensor | None = None


class LayerCalls:
    """Puts forward hooks on layers whose mode matters, for the duration of one step.

    Compiled code would be compiled again when hooks come and go. Without hooks, a step counts as
    a call of each layer that starts and ends the step in the same mode.
    """

    def __init__(self) -> None:
        self.looks = 0
        self._calls: dict[str, _Calls] = {}
        self._layers: dict[str, nn.Module] = {}
        self._handles: list[Any] = []

    def begin(self, module: nn.Module, *, hooks: bool) -> None:
        """Read the modes of the layers of a module, and put hooks on them unless it is compiled."""
        self._remove_hooks()
        self._layers = layers_with_modes(module)
        for name, layer in self._layers.items():
            calls = self._calls.setdefault(name, _Calls())
            calls.modes, calls.before = set(), layer.training
            if hooks:
                self._handles.append(layer.register_forward_pre_hook(_on_call(calls), with_kwargs=True))

    def end(self) -> None:
        """Remove the hooks, and count the step."""
        if not self._layers:
            return
        hooks = bool(self._handles)
        self._remove_hooks()
        self.looks += 1
        for name, layer in self._layers.items():
            calls = self._calls[name]
            if not hooks and layer.training == calls.before:
                calls.modes.add(layer.training)
                calls.moving += layer.training and getattr(layer, "momentum", None) != 0
            if calls.modes == {True}:
                calls.training += 1
                calls.switched += not calls.before and not layer.training
            calls.evaluating += calls.modes == {False}
            if calls.modes:
                calls.streak = calls.streak + 1 if calls.modes == {False} else 0
        self._layers = {}

    def remove(self) -> None:
        """Remove the hooks of a step that did not end."""
        self._remove_hooks()
        self._layers = {}

    def facts(self) -> dict[str, CallFact]:
        """Return the facts of each layer by name. Waits for the device."""
        return {
            name: CallFact(
                calls.training,
                calls.evaluating,
                calls.streak,
                calls.switched,
                calls.moving,
                calls.samples,
                calls.values,
                None if calls.variance is None else float(calls.variance),
            )
            for name, calls in self._calls.items()
        }

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def layers_with_modes(module: nn.Module) -> dict[str, nn.Module]:
    """The normalisation layers of a module, and its layers that draw random numbers, by name."""
    drawing = layers_that_draw(module.modules())
    return {
        plain_name(name): each for name, each in module.named_modules() if isinstance(each, NORMS) or each in drawing
    }


def _on_call(calls: _Calls) -> Callable[..., None]:
    # A plain function: a module that is copied in the middle of a step then copies no calls.
    @torch.no_grad()
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.modes.add(layer.training)
        calls.moving += layer.training and getattr(layer, "momentum", None) != 0
        x = args[0] if args else kwargs.get("input")
        if not isinstance(layer, NORMS) or not isinstance(x, Tensor) or not x.numel() or not x.is_floating_point():
            return
        calls.samples = max(calls.samples, len(x) if x.ndim else 1)
        if layer.training:
            calls.values = max(calls.values, _values(layer, x))
        if layer.training and x.ndim > 1 and _is_unusual(layer):
            calls.variance = _variance(layer, x[: 8 if x.ndim > 2 else 64])

    def eager_hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            hook(layer, args, kwargs)

    return eager_hook


def _is_unusual(layer: nn.Module) -> bool:
    if not isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm):
        return False
    momentum = getattr(layer, "momentum", None)
    return layer.eps > USUAL_EPS or (momentum is not None and momentum < SMALL_MOMENTUM)


def _values(layer: nn.Module, x: Tensor) -> int:
    """Number of values that a layer takes each mean over."""
    if isinstance(layer, nn.LayerNorm):
        return int(torch.Size(layer.normalized_shape).numel())
    if x.ndim < 2:
        return 0
    if isinstance(layer, nn.GroupNorm):
        return x[0].numel() // layer.num_groups
    if isinstance(layer, _BatchNorm):
        return x.numel() // x.shape[1]
    return 0


def _variance(layer: nn.Module, x: Tensor) -> Tensor:
    """Median of the variances that a layer divides by."""
    x = x.float()
    if isinstance(layer, nn.LayerNorm):
        return x.flatten(x.ndim - len(layer.normalized_shape)).var(-1, correction=0).median()
    if isinstance(layer, nn.GroupNorm):
        return x.reshape(len(x), layer.num_groups, -1).var(-1, correction=0).median()
    return x.var([0, *range(2, x.ndim)], correction=0).median()
