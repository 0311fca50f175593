"""Call a training step with each of two hard targets, and blend its losses, logs and metrics."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.blended_logs import BlendedLogs
from lightning_trainingkit.callbacks.noise.blended_metrics import BlendedMetrics
from lightning_trainingkit.callbacks.noise.blended_values import blend_values
from lightning_trainingkit.callbacks.noise.shared_forward import SharedForward

__all__ = ["PairStep"]


class PairStep:
    """``w step(first) + (1 - w) step(second)``, with one forward pass. Use a new object for each epoch.

    - **Returned values and logs** are blended. A log is written once.
    - **Metrics** of torchmetrics hold the blend of their states.
    - **Layers** run once, as far as their inputs do not depend on the targets, see ``SharedForward``.

    Args:
        pl_module: The module.
        name: Name of the callback, for the line about layers that run twice.
    """

    def __init__(self, pl_module: L.LightningModule, name: str) -> None:
        self._module, self._name = pl_module, name
        self._forward = SharedForward(pl_module)
        self._metrics = BlendedMetrics(pl_module, self._forward.within_layer)

    def single(self, step: Callable[[], Any]) -> Any:
        """Call the step once, without a blend."""
        with self._metrics.single():
            return step()

    def pair(
        self,
        first: Callable[[], Any],
        second: Callable[[], Any],
        targets: Sequence[tuple[Tensor, Tensor]],
        weight: float,
    ) -> Any:
        """Call the step twice.

        Args:
            first: Calls the step with the images' own targets.
            second: Calls it with the partners' targets.
            targets: The target in the two calls, then what differs with it.
            weight: Share of the first.

        Returns:
            The blend of what the two calls return.

        Raises:
            TypeError: If a returned or logged value, or a metric, has no blend.
            ValueError: If the calls log different names.
        """
        logs = BlendedLogs(self._module, self._forward.within_layer)
        with self._forward.pair(targets) as replay:
            with self._metrics.first(), logs.recording(0):
                returned = first()
            replay()
            with self._metrics.second(), logs.recording(1):
                other = self._with_cure(second)
        blended = None if returned is None or other is None else blend_values(returned, other, weight, "training_step")
        self._metrics.blend(weight)
        logs.log(weight)
        return blended

    def _with_cure(self, second: Callable[[], Any]) -> Any:
        try:
            return second()
        except RuntimeError as error:
            if "through the graph a second time" not in str(error):
                raise
            raise TypeError(
                f"`training_step` must keep the graph of layers that run once for both targets of {self._name}, got a "
                "gradient that frees it. Write torch.autograd.grad(..., retain_graph=True)."
            ) from error

    def layers_run_twice(self) -> str | None:
        """Return a line about the layers that run in both calls, None if there are none."""
        names = self._forward.ran_twice
        if not names:
            return None
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return (
            f"{self._name}: layers run twice for a blended batch, once with each target, since their inputs or outputs "
            f"differ: {shown}."
        )

    def check(self) -> None:
        """Raise RuntimeError if a layer was shared whose inputs differed, see ``SharedForward.check``."""
        self._forward.check()
