"""Observe whether gradients are cleared between the steps of each optimizer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.parameter_watch import after_accumulation, is_nonzero

__all__ = ["ClearingFact", "GradientClearing", "find_uncleared"]

_WATCHED = 2  # parameters of each optimizer
_LEAST = 5  # steps without which nothing is said


@dataclass(frozen=True)
class ClearingFact:
    """Steps of an optimizer, and how many of them had uncleared gradients.

    Args:
        optimizer: Class of the optimizer, and its index where there are several.
        steps: Steps with a backward pass between this step and the one before.
        uncleared: Steps for which each such backward pass added to a gradient from before the previous step.
    """

    optimizer: str
    steps: int
    uncleared: int


class _Interval:
    """The backward passes that reached one parameter since the last step of its optimizer."""

    def __init__(self) -> None:
        self.passes = self.steps = 0
        self.meets_none_or_zero: bool | Tensor = False  # the pass that is about to accumulate
        self.fresh: bool | Tensor = False  # any pass
        self.cleared: int | Tensor = 0  # steps with a fresh pass before them


class GradientClearing:
    """Watches two parameters of each optimizer, in all steps.

    Between two steps, at least one backward pass must meet a gradient that is None or zero. Deliberate accumulation
    has one: the first pass after ``zero_grad``. So has a discriminator that the generator's pass leaves gradients in.

    Args:
        optimizers: The optimizers of the training.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._intervals: dict[Optimizer, dict[nn.Parameter, _Interval]] = {each: {} for each in optimizers}
        self._handles: list[Any] = []
        for optimizer in self._intervals:
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def watch(self) -> None:
        """Choose the parameters of optimizers that had no trainable ones yet: the first, and the smallest."""
        for optimizer, watched in self._intervals.items():
            if watched:
                continue
            trainable = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            chosen = [*trainable[:1], *sorted(trainable, key=lambda parameter: parameter.numel())]
            for parameter in list(dict.fromkeys(chosen))[:_WATCHED]:
                watched[parameter] = interval = _Interval()
                self._handles.append(parameter.register_hook(_before_accumulation(parameter, interval)))
                self._handles.append(after_accumulation(parameter, _accumulated(interval)))

    def remove(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def facts(self) -> list[ClearingFact]:
        """Return one fact for each optimizer, of its parameter with the most steps. Waits for the device."""
        facts = []
        for index, (optimizer, watched) in enumerate(self._intervals.items()):
            kind = type(optimizer).__name__
            name = kind if len(self._intervals) == 1 else f"{kind} {index}"
            most = max(watched.values(), key=lambda each: (each.steps, -int(each.cleared)), default=_Interval())
            facts.append(ClearingFact(name, most.steps, most.steps - int(most.cleared)))
        return facts

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for interval in self._intervals[optimizer].values():
            if interval.passes:
                interval.steps += 1
                interval.cleared = interval.cleared + interval.fresh
                interval.passes, interval.fresh = 0, False


def _before_accumulation(parameter: nn.Parameter, interval: _Interval) -> Callable[[Tensor], None]:
    # A plain function: a module that is copied in the middle of a step then copies no watch.
    @torch.no_grad()
    def hook(gradient: Tensor) -> None:
        before = parameter.grad
        if before is None or interval.fresh is True:
            interval.meets_none_or_zero = True
        else:
            interval.meets_none_or_zero = ~is_nonzero(before)

    return hook


def _accumulated(interval: _Interval) -> Callable[[Tensor], None]:
    # Not counted in the hook before: `torch.autograd.grad` calls that one too, and accumulates nothing.
    def hook(parameter: Tensor) -> None:
        interval.passes += 1
        interval.fresh = interval.fresh | interval.meets_none_or_zero

    return hook


def find_uncleared(facts: Sequence[ClearingFact]) -> list[Finding]:
    """Find optimizers whose gradients add up over their steps.

    Args:
        facts: One fact for each optimizer.

    Returns:
        One finding for each optimizer for which at least half of the steps began uncleared.

    Example:
        >>> [finding.kind for finding in find_uncleared([ClearingFact("SGD", 20, 19)])]
        ['gradients_not_cleared']
    """
    return [
        Finding.of(
            "gradients_not_cleared",
            fact.optimizer,
            fact.uncleared / fact.steps,
            f"{fact.optimizer} still had the gradients of its previous step in {fact.uncleared} of {fact.steps} steps. "
            "The gradients of all batches so far add up.",
            "Clear the gradients before each new backward pass: `optimizer.zero_grad()`, `self.manual_backward(loss)`, "
            "`optimizer.step()`. An overridden `optimizer_zero_grad` must call `optimizer.zero_grad()`.",
        )
        for fact in facts
        if fact.steps >= _LEAST and 2 * fact.uncleared >= fact.steps
    ]
