"""Find out whether the output for one image depends on the other images of its batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["BatchLeak", "copies_of_the_first", "find_batch_leak"]


@dataclass(frozen=True)
class BatchLeak:
    """A dependence of one image's output on the other images of the batch.

    Args:
        layer: Name of the first layer that shows it, empty if no layer alone does.
        kind: Class name of that layer, empty if no layer alone does.
        change: Change of the first image's output, relative to the size of the output.
        statistics: Whether the layer is a BatchNorm, which uses the statistics of the batch.
    """

    layer: str
    kind: str
    change: float
    statistics: bool


@torch.no_grad()
def find_batch_leak(
    module: nn.Module, output: Callable[[Any], Tensor], batch: Any, keep: Tensor | None = None
) -> BatchLeak | None:
    """Replace all images but the first by copies of the first, and compare the output for the first image.

    Call it in eval mode: BatchNorm depends on the batch in training mode, as it must. The rows of a batch that holds a
    graph are no images: a sparse tensor, a tensor of shape ``(N, N)`` beside the
    images, or integers of shape ``(2, edges)``.

    Args:
        module: The module, to name the layer.
        output: From a batch to the outputs of shape ``(N, ...)``. It must draw the same random numbers in each call.
        batch: The batch: tensors, and lists, tuples and dicts of tensors.
        keep: The targets, which stay as they are.

    Returns:
        The leak, or None if the output for the first image does not change, or if the batch holds a graph.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=0)).eval()
        >>> leak = find_batch_leak(net, net, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> leak.layer, leak.kind
        ('1', 'Softmax')
    """
    before: list[tuple[Tensor, Tensor]] = []
    found = _watch(module, output, batch, lambda layer, x, y: before.append((x, y)))
    size = len(found)
    if _holds_graph([value for value in tree_leaves(batch) if isinstance(value, Tensor)], size, keep):
        return None
    changed = copies_of_the_first(batch, size, keep)
    after: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    names = {layer: name for name, layer in module.named_modules()}
    again = _watch(module, output, changed, lambda layer, x, y: after.append((names[layer], layer, x, y)))
    if len(again) != size or not torch.isfinite(found).all() or not torch.isfinite(again).all():
        return None
    scale = float(found.float().std()) or float(found.float().abs().max())
    change = float((found[0].float() - again[0].float()).abs().max()) / scale if scale else 0.0
    if change < _LEAST:
        return None
    for (x, y), (name, layer, x_after, y_after) in zip(before, after, strict=False):
        if _same(x, x_after) and not _same(y, y_after):
            return BatchLeak(name, type(layer).__name__, change, isinstance(layer, _BatchNorm))
    return BatchLeak("", "", change, False)


def copies_of_the_first(batch: Any, size: int, keep: Tensor | None = None) -> Any:
    """Replace all images of a batch by copies of the first one.

    Args:
        batch: Tensors, and lists, tuples and dicts of tensors.
        size: Number of images. Tensors of another length stay.
        keep: The targets, which stay.

    Example:
        >>> copies_of_the_first(torch.tensor([[1.0], [2.0]]), 2).tolist()
        [[1.0], [1.0]]
    """

    def replace(value: Any) -> Any:
        return value[:1].expand(size, *value.shape[1:]).clone() if _is_input(value, size, keep) else value

    return tree_map(replace, batch)


_LEAST = 1e-3  # relative; kernels for other batches differ by rounding alone


def _watch(
    module: nn.Module, output: Callable[[Any], Tensor], batch: Any, see: Callable[[nn.Module, Tensor, Tensor], None]
) -> Tensor:
    """Call ``output``, and show the first image's input and output of each layer without children."""

    def hook(layer: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        result = result[0] if isinstance(result, tuple) and result else result
        if args and isinstance(args[0], Tensor) and isinstance(result, Tensor) and args[0].dim() and result.dim():
            see(layer, args[0][0].detach().clone(), result[0].detach().clone())

    hooks = [
        layer.register_forward_hook(hook)
        for layer in module.modules()
        if next(layer.children(), None) is None or isinstance(layer, nn.MultiheadAttention | nn.TransformerEncoderLayer)
    ]
    try:
        return output(batch)
    finally:
        for handle in hooks:
            handle.remove()


def _holds_graph(tensors: list[Tensor], size: int, keep: Tensor | None) -> bool:
    square = [each for each in tensors if each.shape == (size, size)]
    return any(
        each.layout != torch.strided or (each.dtype == torch.int64 and each.dim() == 2 and len(each) == 2 != size)
        for each in tensors
    ) or (bool(square) and any(_is_input(each, size, keep) and each.shape != (size, size) for each in tensors))


def _is_input(value: Any, size: int, keep: Tensor | None) -> bool:
    if not isinstance(value, Tensor) or value.dim() < 2 or len(value) != size:
        return False
    return keep is None or value.shape != keep.shape or not torch.equal(value.to(keep), keep)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return True  # no layer of this pair shows a change
    scale = float(one.float().abs().max()) or 1.0
    return bool(((one.float() - other.float()).abs().max() <= 1e-5 * scale).item()) if one.numel() else True
