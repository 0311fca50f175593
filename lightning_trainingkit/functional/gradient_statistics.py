"""Statistics of gradients and of the updates that an optimizer makes of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot, isfinite, nan

import torch
from torch import Tensor

__all__ = ["GradientSummary", "combine", "norms", "sign_agreement"]


@dataclass(frozen=True)
class GradientSummary:
    """Gradient and update of one parameter, over the recorded steps in which the parameter had a gradient.

    Norms are root mean squares over the steps; the other numbers are means. Without such a step they are NaN.

    Args:
        elements: Number of elements of the parameter.
        steps: Number of recorded steps with a gradient.
        gradient_norm: Euclidean norm of the gradient before clipping.
        clipped_norm: Norm after clipping, or None if it was not recorded.
        weight_norm: Norm of the parameter before the step, or None without a recorded update.
        update_norm: Norm of the parameter's change in the step, or None without a recorded update.
        zeros: Share of the gradient's elements that are exactly zero.
        sign_agreement: ``|mean of sign(dL/dw)|`` over the incoming weights of a unit, averaged over units. 1 means that
            all gradients of each unit have one sign. None for biases and other parameters without units.
        descent: Cosine between the update and minus the gradient, or None without a recorded update.
    """

    elements: int
    steps: int
    gradient_norm: float
    clipped_norm: float | None
    weight_norm: float | None
    update_norm: float | None
    zeros: float
    sign_agreement: float | None
    descent: float | None

    @property
    def update_ratio(self) -> float | None:
        """Norm of the update, divided by the norm of the parameter. It is infinite for a parameter of zeros."""
        if self.update_norm is None or self.weight_norm is None:
            return None
        if self.weight_norm == 0:
            return float("inf") if self.update_norm else 0.0
        return self.update_norm / self.weight_norm

    @property
    def finite(self) -> bool:
        """Whether gradient, parameter and update were finite in all recorded steps."""
        values = (self.gradient_norm, self.clipped_norm, self.weight_norm, self.update_norm)
        return self.steps == 0 or all(isfinite(value) for value in values if value is not None)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, shape ``(len(tensors),)``, in float32, or float64 where a tensor has it.

    Example:
        >>> norms([torch.ones(4, dtype=torch.bfloat16), torch.tensor([3.0, 4.0])])
        tensor([2., 5.])
    """
    kind = torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32
    found = torch._foreach_norm(list(tensors), 2, dtype=kind)
    return torch.stack([each.to(found[0].device) for each in found])


def sign_agreement(gradient: Tensor) -> Tensor:
    """``|mean of sign(dL/dw)|`` over the incoming weights of each unit, averaged over the units.

    Args:
        gradient: Gradient of a weight, or its signs, of shape ``(units, ...)``.

    Returns:
        A number from 0 (as many positive as negative gradients) to 1 (one sign for each unit).

    Example:
        >>> sign_agreement(torch.tensor([[0.1, 0.2], [-3.0, -1.0], [1.0, -1.0]]))
        tensor(0.6667)
    """
    return gradient.sign().flatten(1).mean(1).abs().mean()


def combine(summaries: Iterable[GradientSummary]) -> GradientSummary:
    """Summarise several parameters as one: those of a layer, or of a whole model.

    Parameters without a gradient count in ``elements`` alone. A value that some parameter lacks covers the others.

    Example:
        >>> weight = GradientSummary(4, 1, 3.0, None, 1.0, 0.1, 0.0, 1.0, 1.0)
        >>> bias = GradientSummary(1, 1, 4.0, None, 0.0, 0.0, 1.0, None, 0.0)
        >>> both = combine([weight, bias])
        >>> both.gradient_norm, both.update_ratio, both.zeros, both.sign_agreement
        (5.0, 0.1, 0.2, 1.0)
    """
    every = list(summaries)
    if len(every) == 1:
        return every[0]
    active = [each for each in every if each.steps]
    gradient, update = _length(each.gradient_norm for each in active), _length(each.update_norm for each in active)
    units = [(each.sign_agreement, each.elements) for each in active if each.sign_agreement is not None]
    return GradientSummary(
        elements=sum(each.elements for each in every),
        steps=max((each.steps for each in active), default=0),
        gradient_norm=nan if gradient is None else gradient,
        clipped_norm=_length(each.clipped_norm for each in active),
        weight_norm=_length(each.weight_norm for each in active),
        update_norm=update,
        zeros=_mean([(each.zeros, each.elements) for each in active]),
        sign_agreement=_mean(units) if units else None,
        descent=_cosine(active, gradient, update),
    )


def _length(parts: Iterable[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return hypot(*known) if known else None


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else nan


def _cosine(active: Sequence[GradientSummary], gradient: float | None, update: float | None) -> float | None:
    if update is None or gradient is None:
        return None
    known = [(each.descent, each.update_norm, each.gradient_norm) for each in active]
    along = sum(cosine * change * slope for cosine, change, slope in known if cosine is not None and change is not None)
    return along / (update * gradient) if update and gradient else 0.0
