"""Views of the images as steps. Neighbouring views share their first steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_trainingkit.functional._view_sets import same_step
from lightning_trainingkit.nn.averaging.call_arguments import CallArguments

__all__ = ["SharedSteps", "ViewSteps", "view_steps"]


class ViewSteps(NamedTuple):
    """One view of the images, as a sequence of transforms."""

    weight: float
    steps: Sequence[Callable[[Tensor], Tensor]] = ()
    kept: int = 0
    """Number of first steps that the next view shares. Their result is kept for the next view."""


class SharedSteps:
    """Keep the result of the first steps that the next view shares: one scale has many crops."""

    def __init__(self) -> None:
        self._of: CallArguments | None = None
        self._steps = 0
        self._kept: CallArguments | None = None

    def view(self, batch: CallArguments, view: ViewSteps) -> CallArguments:
        """Return the view of the batch. Call it for the views in their order."""
        seen, begun = (self._kept, self._steps) if self._kept is not None and self._of is batch else (batch, 0)
        self._of, self._kept, self._steps = batch, seen if begun == view.kept > 0 else None, view.kept
        for number, step in enumerate(view.steps[begun:], begun + 1):
            seen = seen.view(step)
            if number == view.kept:
                self._kept = seen
        return seen.dense() if view.steps else seen


def view_steps(views: Sequence[tuple[float, Any]]) -> list[ViewSteps]:
    """Split views (each with its weight) into steps, and count the steps that each shares with the next view."""
    steps = [tuple(getattr(view, "steps", (view,))) for _, view in views]
    found = []
    for number, (weight, _) in enumerate(views):
        following = steps[number + 1] if number + 1 < len(views) else ()
        same = [same_step(one, other) for one, other in zip(steps[number], following, strict=False)]
        found.append(ViewSteps(weight, steps[number], [*same, False].index(False)))
    return found
