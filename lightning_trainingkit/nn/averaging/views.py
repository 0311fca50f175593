"""Views of the images as steps, of which neighbours share the first."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_trainingkit.functional._view_sets import same_step
from lightning_trainingkit.nn.averaging.call_arguments import CallArguments

__all__ = ["SharedSteps", "ViewSteps", "view_steps"]


class ViewSteps(NamedTuple):
    """One view of the images, as the steps that make it."""

    weight: float
    steps: Sequence[Callable[[Tensor], Tensor]] = ()
    kept: int = 0
    """How many of its first steps the next view has too; what they make is kept for it."""


class SharedSteps:
    """What the first steps of the last view have made, for the next one: a scale has many crops."""

    def __init__(self) -> None:
        self._of: CallArguments | None = None
        self._steps = 0
        self._kept: CallArguments | None = None

    def view(self, batch: CallArguments, view: ViewSteps) -> CallArguments:
        """Return the view of the batch; views are asked for in their order."""
        seen, begun = (self._kept, self._steps) if self._kept is not None and self._of is batch else (batch, 0)
        self._of, self._kept, self._steps = batch, seen if begun == view.kept > 0 else None, view.kept
        for number, step in enumerate(view.steps[begun:], begun + 1):
            seen = seen.view(step)
            if number == view.kept:
                self._kept = seen
        return seen.dense() if view.steps else seen


def view_steps(views: Sequence[tuple[float, Any]]) -> list[ViewSteps]:
    """Take views, each with its weight, apart into steps, and see which the next one shares."""
    steps = [tuple(getattr(view, "steps", (view,))) for _, view in views]
    found = []
    for number, (weight, _) in enumerate(views):
        following = steps[number + 1] if number + 1 < len(views) else ()
        same = [same_step(one, other) for one, other in zip(steps[number], following, strict=False)]
        found.append(ViewSteps(weight, steps[number], [*same, False].index(False)))
    return found
