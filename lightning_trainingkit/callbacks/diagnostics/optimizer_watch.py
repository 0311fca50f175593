"""Follow one optimizer: its gradients before clipping, after clipping, and its step."""

from collections.abc import Callable
from typing import Any, Protocol

from torch.optim import Optimizer

__all__ = ["OptimizerWatch", "StepRecorder"]


class StepRecorder(Protocol):
    """What is told of a sampled step, in this order."""

    def gradients_ready(self) -> None:
        """The gradients of the step are complete, and not clipped."""

    def gradients_clipped(self) -> None:
        """The gradients are those that the optimizer uses."""

    def stepped(self) -> None:
        """The optimizer has changed its parameters."""


class OptimizerWatch:
    """Tell a recorder of every n-th step of one optimizer.

    Lightning computes the gradients and clips them inside of the optimizer's closure, except beside an AMP scaler. So
    the closure is wrapped for the length of a step. The scaler leaves out a step with infinite gradients: that step
    does not count, and the recorder is told of the next one.

    Args:
        optimizer: The optimizer. Its hooks are there until ``remove``.
        recorder: What to tell.
        every_n_steps: Number of steps from one sampled step to the next, counted for this optimizer.
        steps: Number of steps that the optimizer made before, in a run that is resumed.
    """

    def __init__(self, optimizer: Optimizer, recorder: StepRecorder, every_n_steps: int, steps: int = 0) -> None:
        self.optimizer = optimizer
        self.steps = steps
        self._recorder = recorder
        self._every = every_n_steps
        self._depth = 0  # a subclass's step that calls its parent's step runs the hooks twice
        self._ready = False
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def gradients_ready(self) -> None:
        """Call this in ``on_before_optimizer_step``, which sees unscaled gradients before clipping."""
        if self.steps % self._every:
            return
        self._ready = True
        self._recorder.gradients_ready()

    def batch_ended(self) -> None:
        """Call this between steps: a step that raised an error has no end."""
        self._depth = 0
        self._ready = False

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(
        self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        self._depth += 1
        if self._depth > 1 or self.steps % self._every:
            return None
        closure = kwargs.get("closure") or next((each for each in args[1:] if callable(each)), None)
        if closure is None:
            self._complete()
            return None
        wrapped = self._wrap(closure)
        return tuple(wrapped if each is closure else each for each in args), {
            name: wrapped if each is closure else each for name, each in kwargs.items()
        }

    def _wrap(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        calls = 0

        def wrapped() -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise TypeError(
                    "`configure_optimizers` must return optimizers that need one gradient a step, got "
                    f"{type(self.optimizer).__name__}, which asks for several. Leave GradientStats out."
                )
            result = closure()
            self._complete()
            return result

        return wrapped

    def _complete(self) -> None:
        if not self._ready:  # the user's own call of an optimizer's step, past Lightning's hooks
            self.gradients_ready()
        self._recorder.gradients_clipped()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self.steps % self._every == 0:
            self._ready = False
            self._recorder.stepped()
        self.steps += 1
