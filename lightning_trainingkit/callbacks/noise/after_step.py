"""Act after each step that an optimizer makes."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

__all__ = ["AfterStep"]


class AfterStep:
    """Call an action once after each step of an optimizer, but not after a step that an AMP scaler leaves out.

    Args:
        optimizer: The optimizer. Its hooks are there until ``remove``.
        action: What to call after a step.
    """

    def __init__(self, optimizer: Optimizer, action: Callable[[], None]) -> None:
        self._action = action
        self._depth = 0  # a subclass's step that calls its parent's step runs the hooks twice
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def start_batch(self) -> None:
        """Call this between steps: a step that raised an error has no end."""
        self._depth = 0

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth += 1

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self._action()
