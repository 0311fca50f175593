"""The loss of outputs that say nothing about the target."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall

__all__ = ["CLASSIFICATION", "uninformed_loss"]

CLASSIFICATION = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "multi_margin_loss",
)


@torch.no_grad()
def uninformed_loss(call: LossCall) -> Tensor | None:
    """Call a loss again, with the same targets and options, and with outputs that say nothing about the target.

    Such outputs are equal scores for all classes: ``log C`` for ``cross_entropy``, ``log 2`` for binary losses,
    ``(C - 1) / C`` for ``multi_margin_loss``. For regression they are the mean of the batch's targets.

    Args:
        call: The recorded call.

    Returns:
        The loss in the shape of ``call.result``, or None for ``log_softmax``, which is no loss.

    Example:
        >>> call = LossCall("cross_entropy", torch.randn(2, 10), torch.tensor([3, 1]), torch.tensor(2.9))
        >>> uninformed_loss(call)
        tensor(2.3026)
    """
    if call.target is None:
        return None
    scores = torch.zeros_like(call.input, dtype=torch.promote_types(call.input.dtype, torch.float32))
    if call.name not in CLASSIFICATION and call.target.dim() and len(call.target) > 1:
        scores += call.target.to(scores).mean(0)
    elif call.name == "nll_loss":
        scores -= math.log(call.input.shape[1] if call.input.dim() > 1 else call.input.shape[0])
    elif call.name == "binary_cross_entropy":
        scores += 0.5
    loss: Callable[..., Tensor] = getattr(functional, call.name)
    target: Any = call.target.to(scores.dtype) if call.target.is_floating_point() else call.target
    with torch.autocast(scores.device.type, enabled=False):
        return loss(scores, target, **call.options)
