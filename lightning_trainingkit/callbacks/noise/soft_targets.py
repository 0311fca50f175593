"""Soft targets: class probabilities in the place of class indices, and the check that a training step takes them."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.blended_metrics import find_metrics, on_update
from lightning_trainingkit.callbacks.noise.hard_use import HardUse
from lightning_trainingkit.callbacks.noise.shared_forward import is_compiled

__all__ = ["checked_step", "probabilities"]

_CURE = "Use targets='pair', which calls the step with hard targets"


def probabilities(labels: Tensor, num_classes: int | None) -> Tensor:
    """Return class indices ``(N,)`` as probabilities ``(N, C)``, and other targets as they are."""
    if labels.is_floating_point() or labels.ndim != 1 or num_classes is None:
        return labels
    return one_hot(labels.long(), num_classes).float()


def checked_step(pl_module: L.LightningModule, step: Callable[[], Any], soft: Tensor) -> Any:
    """Run the step on the first batch with soft targets.

    Args:
        pl_module: The module.
        step: Calls the step.
        soft: The soft targets in its batch.

    Returns:
        What the step returns.

    Raises:
        TypeError: If the step fails, or if it takes the soft targets for classes: a value would be wrong.
    """
    if not soft.is_floating_point():  # pasted masks
        return step()
    memory = soft.untyped_storage().data_ptr()

    def see(metric: Metric, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        takes_soft = any(each.untyped_storage().data_ptr() == memory for each in tensors)
        if takes_soft and type(metric).__module__.startswith("torchmetrics.classification"):
            raise TypeError(
                f"`targets` must be 'pair' beside {type(metric).__name__}, got 'soft': the metric takes hard targets "
                f"and would be wrong without an error. {_CURE}, or give the metric target.argmax(1)."
            )

    compiled = any(is_compiled(each) for each in pl_module.modules())  # it would be compiled once more
    use = HardUse(soft)
    try:
        with on_update(find_metrics(pl_module), see), nullcontext() if compiled else use:
            returned = step()
    except (RuntimeError, ValueError, IndexError) as error:
        raise TypeError(
            f"`targets` must be 'pair' where `training_step` takes hard targets, got 'soft', and the step failed with "
            f"targets {tuple(soft.shape)} in {soft.dtype}: {error}. {_CURE}."
        ) from error
    if use.what is not None:
        raise TypeError(
            f"`targets` must be 'pair' where `training_step` takes hard targets, got 'soft', and the step {use.what}: "
            f"a value would be wrong without an error. {_CURE}, or take target.argmax(1) there."
        )
    return returned
