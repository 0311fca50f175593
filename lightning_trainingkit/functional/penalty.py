"""Penalties on weights: L1, L2 and elastic net, as a value, as a gradient and as a proximal step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check

__all__ = ["add_penalty_gradient_", "check_strength", "penalty_value", "proximal_step_"]


def penalty_value(parameters: Sequence[Tensor], l1: float = 0.0, l2: float = 0.0) -> Tensor:
    """Sum ``l1 |w| + l2 w^2`` over all elements ``w`` of the parameters.

    The lecture's elastic net ``lambda (beta W^2 + |W|)`` is ``l1 = lambda`` and ``l2 = lambda beta``. Autograd can
    differentiate the result, so that it can be added to a loss. Two norms of each parameter are computed, and nothing
    waits for the device.

    Args:
        parameters: Tensors of any shapes, at least one.
        l1: Strength of ``|w|``, at least 0.
        l2: Strength of ``w^2``, at least 0. A ``weight_decay`` of SGD is twice this number.

    Returns:
        A number, shape ``()``, in float32, or float64 where a parameter has it.

    Raises:
        ValueError: If a strength is negative or not finite, or if there are no parameters.

    Example:
        >>> penalty_value([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])], l1=0.1, l2=0.01)
        tensor(0.7400)

    References:
        Zou and Hastie, "Regularization and variable selection via the elastic net", JRSS B 2005.
    """
    l1, l2 = check_strength(l1, l2)
    tensors = list(parameters)
    if not tensors:
        raise ValueError("`parameters` must hold at least one tensor, got none. Leave the penalty out.")
    kind = torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32
    parts = []
    if l1:
        parts += [each * l1 for each in _absolute_sums(tensors, kind)]
    if l2:
        parts += [norm.square() * l2 for norm in torch._foreach_norm(tensors, 2, dtype=kind)]
    if not parts:
        return torch.zeros((), dtype=kind, device=tensors[0].device)
    return torch.stack([part.to(tensors[0].device) for part in parts]).sum()


def add_penalty_gradient_(
    gradients: Sequence[Tensor], parameters: Sequence[Tensor], l1: float = 0.0, l2: float = 0.0
) -> None:
    """Add ``l1 sign(w) + 2 l2 w``, the gradient of ``penalty_value``, to the gradients in place.

    The sign of zero is zero, as in autograd's derivative of ``|w|``.

    Args:
        gradients: A gradient for each parameter, in the parameter's shape and dtype. They are changed in place.
        parameters: The parameters, which are not changed.
        l1: Strength of ``|w|``, at least 0.
        l2: Strength of ``w^2``, at least 0.

    Raises:
        ValueError: If a strength is negative or not finite.

    Example:
        >>> weight, gradient = torch.tensor([2.0, 0.0, -1.0]), torch.zeros(3)
        >>> add_penalty_gradient_([gradient], [weight], l1=0.5, l2=0.25)
        >>> gradient
        tensor([ 1.5000,  0.0000, -1.0000])
    """
    l1, l2 = check_strength(l1, l2)
    with torch.no_grad():
        for sums, weights in zip(_batches(gradients), _batches(parameters), strict=True):
            if l2:
                torch._foreach_add_(sums, weights, alpha=2 * l2)
            if l1:
                torch._foreach_add_(sums, torch._foreach_sign(weights), alpha=l1)


def proximal_step_(parameters: Sequence[Tensor], rate: float, l1: float = 0.0, l2: float = 0.0) -> None:
    """Replace each element by ``sign(w) max(|w| - rate l1, 0) / (1 + 2 rate l2)``, in place.

    This is the proximal operator of ``rate`` times ``penalty_value``: the ``v`` that minimises
    ``(v - w)^2 / 2 + rate (l1 |v| + l2 v^2)``. Elements within ``rate l1`` of zero become exactly zero.

    Args:
        parameters: Tensors of any shapes. They are changed in place.
        rate: Learning rate of the step before, at least 0.
        l1: Strength of ``|w|``, at least 0.
        l2: Strength of ``w^2``, at least 0.

    Raises:
        ValueError: If the rate or a strength is negative or not finite.

    Example:
        >>> weight = torch.tensor([0.3, -0.05, -1.1])
        >>> proximal_step_([weight], rate=0.1, l1=1.0)
        >>> weight
        tensor([ 0.2000,  0.0000, -1.0000])

    References:
        Parikh and Boyd, "Proximal Algorithms", Foundations and Trends in Optimization 2014, section 6.5.
    """
    l1, l2 = check_strength(l1, l2)
    rate = _check.number("rate", rate, "Give the learning rate of the step.", least=0)
    with torch.no_grad():
        if rate * l1:
            for each in parameters:
                each.sub_(each.clamp(-rate * l1, rate * l1))  # w - w is exactly zero, where softshrink gives -0.0
        if rate * l2 and parameters:
            torch._foreach_div_(list(parameters), 1 + 2 * rate * l2)


def check_strength(l1: float, l2: float) -> tuple[float, float]:
    """Return both strengths of a penalty as ``float``.

    Args:
        l1: Strength of ``|w|``.
        l2: Strength of ``w^2``.

    Raises:
        TypeError: If a strength is no number.
        ValueError: If a strength is negative or not finite.
    """
    hint = "A penalty makes weights small; use 0 for none."
    return _check.number("l1", l1, hint, least=0), _check.number("l2", l2, hint, least=0)


def _batches(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """All tensors at once on a GPU. One by one on a CPU, where a temporary copy then reuses the memory of the last."""
    return [list(tensors)] if any(each.is_cuda for each in tensors) else [[each] for each in tensors]


def _absolute_sums(tensors: list[Tensor], kind: torch.dtype) -> Sequence[Tensor]:
    if any(each.is_cuda for each in tensors):
        return torch._foreach_norm(tensors, 1, dtype=kind)
    return [each.abs().sum(dtype=kind) for each in tensors]  # a norm takes 2.5 times as long on a CPU
