"""How many targets a network gets right, from what its losses were given."""

from torch import Tensor

from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall

__all__ = ["hits"]


def hits(call: LossCall, labels: Tensor | None = None, used: Tensor | None = None) -> tuple[int, int] | None:
    """Count the right predictions and all predictions of a recorded call.

    Args:
        call: The call of a loss of classes, or of ``log_softmax``.
        labels: The class indices for ``log_softmax``.
        used: Which targets count, in the shape of the targets. None for all.

    Returns:
        Right ones and all, or None for another loss.

    Example:
        >>> import torch
        >>> scores, target = torch.tensor([[0.1, 2.0], [1.0, 0.0]]), torch.tensor([1, 1])
        >>> hits(LossCall("cross_entropy", scores, target, torch.tensor(0.7)))
        (1, 2)
    """
    scores, target = call.input.detach(), call.target if call.target is not None else labels
    if target is None:
        return None
    target = target.detach()
    if call.name.startswith("binary_cross_entropy"):
        above = scores > (0 if call.name.endswith("logits") else 0.5)
        return int((above == (target > 0.5)).sum()), target.numel()
    if call.name not in ("cross_entropy", "nll_loss", "multi_margin_loss", "log_softmax"):
        return None
    axis = 1 if scores.dim() > 1 else 0
    predicted = scores.argmax(axis)
    if target.shape == scores.shape:  # probabilities
        target = target.argmax(axis)
    if target.shape != predicted.shape:
        return None
    counts = target != call.options.get("ignore_index", -100)
    if used is not None and used.shape == counts.shape:
        counts = counts & used
    return int(((predicted == target) & counts).sum()), int(counts.sum())
