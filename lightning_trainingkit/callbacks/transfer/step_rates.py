"""A learning rate for each parameter, which only the optimizer's step sees."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer, Rprop
from torch.utils.hooks import RemovableHandle

__all__ = ["StepRates"]

Groups = list[dict[str, Any]]


class StepRates:
    """Multiply the learning rate of each parameter by a factor, in the optimizer's step alone.

    The optimizer's groups are split while the parameters move, and joined again after the step. So schedules, monitors,
    checkpoints and the user's own code see the user's groups. A closure runs before the split. Values that a step
    changes in a group (a count of steps) are carried over.

    Args:
        optimizers: The optimizers whose steps get hooks.

    Raises:
        TypeError: If an optimizer can't have a rate for each parameter, or has no hooks.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._factors: Callable[[], dict[nn.Parameter, float | None]] = dict
        self._kept: dict[Optimizer, tuple[Groups, list[tuple[dict[str, Any], dict[str, Any]]]]] = {}
        self._handles: list[RemovableHandle] = []
        for optimizer in optimizers:
            if isinstance(optimizer, LBFGS | Rprop) or not hasattr(optimizer, "_optimizer_step_pre_hooks"):
                self.detach()
                raise TypeError(
                    "`configure_optimizers` must return an optimizer of torch that asks for the rate of each group at "
                    f"each step, got {type(optimizer).__name__}. Use SGD or AdamW, say."
                )
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def use(self, factors: Callable[[], dict[nn.Parameter, float | None]]) -> None:
        """Call ``factors`` at each later step: None leaves a parameter out, a parameter without an entry has 1."""
        self._factors = factors

    def detach(self) -> None:
        """Undo the split of groups that a failed step has left, and remove the optimizers' hooks."""
        for optimizer in list(self._kept):
            self._join(optimizer)
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._join(optimizer)  # after a step that raised
        position = "closure" not in kwargs
        closure = (args[1] if len(args) > 1 else None) if position else kwargs["closure"]
        if closure is None:
            self._split(optimizer)
            return None

        def closed() -> Any:
            self._join(optimizer)
            loss = closure()
            self._split(optimizer)
            return loss

        return ((args[0], closed, *args[2:]), kwargs) if position else (args, {**kwargs, "closure": closed})

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._join(optimizer)

    def _split(self, optimizer: Optimizer) -> None:
        factors = self._factors()
        whole = list(optimizer.param_groups)
        parts = []
        for group in whole:
            by_factor: dict[float | None, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_factor.setdefault(factors.get(parameter, 1.0), []).append(parameter)
            by_factor.pop(None, None)
            for factor, parameters in by_factor.items():
                parts.append((group, {**group, "params": parameters, "lr": group["lr"] * factor}))
        if not parts:  # some optimizers read their first group
            parts.append((whole[0], {**whole[0], "params": []}))
        self._kept[optimizer] = (whole, parts)
        optimizer.param_groups[:] = [part for _, part in parts]  # the list may be that of an inner optimizer too

    def _join(self, optimizer: Optimizer) -> None:
        if optimizer not in self._kept:
            return
        whole, parts = self._kept.pop(optimizer)
        optimizer.param_groups[:] = whole
        for group, part in parts:
            group.update({key: value for key, value in part.items() if key not in ("params", "lr")})
