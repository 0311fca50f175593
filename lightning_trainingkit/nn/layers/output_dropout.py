"""Dropout on the output of a layer, without a new module."""

from typing import Any

from torch import Tensor
from torch.nn.functional import dropout

from lightning_trainingkit.nn.layers.noisy_forward import NoisyForward

__all__ = ["OutputDropout"]


class OutputDropout(NoisyForward):
    """Inverted dropout on a layer's output, as torch's: ``y' = y * m / (1 - p)`` in training mode, ``y`` in eval mode.

    The keys of the state dict do not change.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer, and drop values of its output."""
        self.ran = True
        y = self.inner(*args, **kwargs)
        if not isinstance(y, Tensor) or not y.is_floating_point():
            got = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"`{type(self.module).__name__}` must return one tensor of floats for dropout after it, got {got}. "
                "Name a layer inside of it."
            )
        return dropout(y, self.rate) if self.noisy else y
