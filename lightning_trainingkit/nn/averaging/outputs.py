"""Check the output of a pass."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_logits", "refuse_probabilities"]


def check_logits(out: Any, rows: tuple[int, ...]) -> None:
    """Raise ValueError unless an output is logits ``(N, C)``, or ``(K, N, C)``, of these ``rows``."""
    shape = tuple(out.shape) if isinstance(out, Tensor) and out.is_floating_point() else (0,)
    if shape[:-1] != rows or shape[-1] < 2:
        found = f"{tuple(out.shape)} of {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        if _names(out).count("logits") == 1:
            raise ValueError(
                f"`target` must return logits (N, C) as one tensor, got {found} with {', '.join(_names(out))}. Name as "
                "`target` a module whose forward returns the `logits` alone."
            )
        raise ValueError(
            f"`target` must return logits of shape (N, C) = ({rows[-1]}, number of classes), floats and at least "
            f"two classes, got {found}. Name a submodule that does."
        )


def _names(out: Any) -> list[str]:
    """Names of the fields of a dict, a named tuple or another object."""
    if isinstance(out, Tensor):
        return []
    fields = out if isinstance(out, Mapping) else getattr(out, "_fields", getattr(out, "__dict__", ()))
    return [str(name) for name in fields]


def refuse_probabilities(out: Tensor) -> None:
    """Raise ValueError if an output is probabilities. For the first pass, since it synchronises with the device."""
    tolerance = max(1e-3, torch.finfo(out.dtype).eps)
    out = out.detach().float()
    if out.numel() and bool(((out >= 0).all() & ((out.sum(dim=-1) - 1).abs() < tolerance).all()).item()):
        raise ValueError(
            "`target` must return logits or log-probabilities, got probabilities: rows that are positive and sum to 1. "
            "Name a submodule from before the softmax."
        )
