"""Cut a model where its frozen part ends, so that what this part says of an image can be kept."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from lightning_trainingkit.nn._chance import stirs
from lightning_trainingkit.nn._cut import CannotCutError, FrozenFront, Setting, cut, held, is_of_images

__all__ = ["CannotCutError", "FrozenFront", "find_front"]


def find_front(
    module: nn.Module,
    x: Tensor,
    forward: Callable[..., Any] | None = None,
    ignore: Collection[Setting] = (),
) -> FrozenFront | None:
    """Cut the forward of a module, in the mode that it is in, after the last value that no open parameter has touched.

    What holds an open parameter (``requires_grad``), is random in this mode, or updates statistics, begins the rest.
    Parts that are wholly frozen or wholly open are kept whole; a part in between is traced, with what its attributes
    say now. That both parts together return what the forward returns is tried out on ``x``; the module is left as it
    was found.

    Args:
        module: Takes one tensor, images first.
        x: Some images, shape ``(N, ...)``; two are enough.
        forward: The module's own forward, where something stands in its place.
        ignore: Attributes not to watch.

    Returns:
        None if no frozen parameter is in the front.

    Raises:
        CannotCutError: If the forward can't be traced, or what it says of an image depends on other images or chance.
    """
    forward = forward or module.forward
    parameters = list(module.parameters())
    if all(p.requires_grad for p in parameters):
        return None
    partly = any(p.requires_grad for p in parameters)
    found = cut(module, x, ignore) if partly else _whole(module, forward)
    if found is not None:
        _try_out(module, forward, found, x)
    return found


def _whole(module: nn.Module, forward: Callable[..., Any]) -> FrozenFront:
    stir = stirs(module)
    if stir:
        raise CannotCutError(f"{stir}, so that what it says of an image changes from epoch to epoch.")

    def front(x: Tensor) -> tuple[Tensor, ...]:
        found = forward(x)
        if not isinstance(found, Tensor):
            raise CannotCutError(f"{type(module).__name__} returns {type(found).__name__}, and no tensor.")
        return (found,)

    return FrozenFront(front, lambda x, found: found, (type(module).__name__,), tuple(held(module)), {})


@torch.no_grad()
def _try_out(module: nn.Module, forward: Callable[..., Any], found: FrozenFront, x: Tensor) -> None:
    """Raise CannotCutError unless the two parts do what the forward does, for each image by itself."""
    kind = type(module).__name__
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = [x.device] if x.is_cuda else []
    try:
        features, again = found.front(x.clone()), found.front(x.clone())
        if not all(is_of_images(each, len(x)) for each in features):
            raise CannotCutError(f"what the frozen part of {kind} says has not one entry for each image.")
        if not all(torch.equal(one, two) for one, two in zip(features, again, strict=True)):
            raise CannotCutError(f"the frozen part of {kind} says something else each time that it sees an image.")
        one_alone = found.front(x[:1].clone())
        if not all(_close(one, two[:1]) for one, two in zip(one_alone, features, strict=True)):
            raise CannotCutError(f"what the frozen part of {kind} says of an image depends on the others in its batch.")
        results = []
        in_two: Callable[[], Any] = lambda: found.rest(x.clone(), *(each.clone() for each in features))  # noqa: E731
        whole: Callable[[], Any] = lambda: forward(x.clone())  # noqa: E731
        for call in (in_two, whole):
            with torch.random.fork_rng(devices):
                torch.manual_seed(0)
                results.append(call())
            for buffer, value in buffers:
                buffer.copy_(value)
        flat = [_pytree.tree_leaves(result) for result in results]
        same = len(flat[0]) == len(flat[1]) and all(
            _close(one, two) if isinstance(one, Tensor) and isinstance(two, Tensor) else one == two
            for one, two in zip(*flat, strict=True)
        )
        if not same:
            raise CannotCutError(f"the forward of {kind} does something that a trace of it does not show.")
    finally:
        for buffer, value in buffers:
            buffer.copy_(value)


def _close(one: Tensor, two: Tensor) -> bool:
    """Equal but for the rounding of another batch size."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, two)
    scale = two.abs().max().clamp(min=1e-30) if two.numel() else torch.ones(())
    return bool(((one - two).abs().max() if two.numel() else scale * 0) <= 100 * torch.finfo(one.dtype).eps * scale)
