"""Tell from the targets in a batch whether the outputs are class scores."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["class_targets"]


_IGNORED = -100  # by cross_entropy


def class_targets(batch: Any, inputs: Collection[int], shape: Sequence[int]) -> tuple[bool | None, str]:
    """Tell whether a batch holds targets for class scores.

    Class targets are integers ``(N,)`` from 0 to ``C - 1`` (or -100: ignored), or rows ``(N, C)`` that are not negative
    and sum to 1. The call synchronises with the device.

    Args:
        batch: Tensors anywhere in dicts, lists and tuples.
        inputs: ``id`` of the tensors that are no targets. If the batch holds none of them, its first tensor is no
            target.
        shape: ``(N, C)`` of the outputs.

    Returns:
        True for class targets, False for other targets, None without targets. Second, a description of the other
        targets.

    Example:
        >>> import torch
        >>> x = torch.rand(3, 1, 4, 4)
        >>> class_targets((x, torch.tensor([0, 4, 1])), {id(x)}, (3, 5))
        (True, '')
        >>> class_targets((x, torch.ones(3, 5)), {id(x)}, (3, 5))
        (False, 'targets (3, 5) of torch.float32')
    """
    size, classes = shape
    tensors = [each for each in tree_leaves(batch) if isinstance(each, Tensor)]
    left = [each for each in tensors if id(each) not in inputs]
    targets = left if len(left) < len(tensors) else tensors[1:]
    rows = [each for each in targets if tuple(each.shape) == (size, classes)]
    if rows:
        wrong = [each for each in rows if not _are_distributions(each)]
        return not wrong, _described(wrong)
    numbers = [each for each in targets if tuple(each.shape) in ((size,), (size, 1))]
    if any(_are_indices(each, classes) for each in numbers):
        return True, ""
    floats = [each for each in numbers if each.is_floating_point()]
    return (False if floats else None), _described(floats)


def _are_distributions(rows: Tensor) -> bool:
    rows = rows.detach().float()
    return bool(((rows >= 0).all() & ((rows.sum(1) - 1).abs() < 1e-2).all()).item())


def _are_indices(numbers: Tensor, classes: int) -> bool:
    whole = not (numbers.is_floating_point() or numbers.is_complex())
    if not whole:
        return False
    known = (numbers >= 0) & (numbers < classes)
    return bool((known.any() & (known | (numbers == _IGNORED)).all()).item())


def _described(targets: Sequence[Tensor]) -> str:
    return f"targets {tuple(targets[0].shape)} of {targets[0].dtype}" if targets else ""
