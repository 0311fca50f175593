"""Cut a model where its frozen part ends, so that what this part says of an image can be kept."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from lightning_trainingkit.nn.structure.attributes import attributes_put_back
from lightning_trainingkit.nn.structure.randomness import stirs
from lightning_trainingkit.nn.transfer.attribute_reads import plain_attributes
from lightning_trainingkit.nn.transfer.front_cut import (
    CannotCutError,
    FrozenFront,
    IsOpen,
    cut,
    held_tensors,
    is_of_images,
    not_wholly_open,
    refuse_hooks,
)

__all__ = ["CannotCutError", "FrozenFront", "find_front", "says_the_same"]

_FLOAT32 = torch.finfo(torch.float32).eps


def find_front(
    module: nn.Module,
    x: Tensor,
    forward: Callable[..., Any] | None = None,
    is_open: IsOpen = lambda parameter: parameter.requires_grad,
    *,
    tried: FrozenFront | None = None,
) -> FrozenFront | None:
    """Cut the forward of a module, in the mode that it is in, after the last value that no open parameter has touched.

    What holds an open parameter, is random in this mode, or updates statistics, begins the rest. Parts that are wholly
    frozen or wholly open are kept whole; a part in between is traced, with what its attributes say now. That both parts
    together return what the forward returns is tried out on ``x``; the module is left as it was found.

    Args:
        module: Takes one tensor, images first.
        x: Some images, shape ``(N, ...)``; two are enough.
        forward: The module's own forward, where something stands in its place.
        is_open: Which parameters train; by default those with ``requires_grad``.
        tried: A front that need not be tried out again if the code of this one is the same.

    Returns:
        None if no frozen parameter is in the front.

    Raises:
        CannotCutError: If the forward can't be traced, keeps something in an attribute, has forward hooks in the
            front, or what it says of an image depends on other images or chance.
    """
    forward = forward or module.forward
    open_ones = [is_open(p) for p in module.parameters()]
    if all(open_ones):
        return None
    with _generators_put_back():
        found = cut(module, x, is_open) if any(open_ones) else _whole(module, forward)
        if found is not None and (tried is None or found.code != tried.code):
            _try_out(module, forward, found, x, is_open, torch.is_grad_enabled())
    return found


def _whole(module: nn.Module, forward: Callable[..., Any]) -> FrozenFront:
    stir = stirs(module)
    if stir:
        raise CannotCutError(f"{stir}, so that what it says of an image changes from epoch to epoch.")
    refuse_hooks((name, each) for name, each in module.named_modules() if each is not module)

    def front(x: Tensor) -> tuple[Tensor, ...]:
        found = forward(x)
        if not isinstance(found, Tensor):
            raise CannotCutError(f"{type(module).__name__} returns {type(found).__name__}, and no tensor.")
        return (found,)

    return FrozenFront(
        front,
        lambda x, found: found,
        (type(module).__name__,),
        tuple(held_tensors(module)),
        plain_attributes(module.modules()),
        frozenset(),
    )


@torch.no_grad()
def _try_out(
    module: nn.Module, forward: Callable[..., Any], found: FrozenFront, x: Tensor, is_open: IsOpen, with_grad: bool
) -> None:
    """Raise CannotCutError unless the two parts do what the forward does, for each image by itself, and back."""
    kind, watched = type(module).__name__, not_wholly_open(module, is_open)
    wanted = [each for each in module.parameters() if with_grad and is_open(each) and each.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with attributes_put_back(module):
            expected, gradients = _run(forward, x, kind, watched, wanted)
            for buffer, value in buffers:
                buffer.copy_(value)
            try:
                _compare_parts(found, x, kind, expected, wanted, gradients)
            except CannotCutError:
                raise
            except Exception as error:  # the forward itself has just run
                raise CannotCutError(f"what is traced of the forward of {kind} can't be run: {error}.") from error
    finally:
        for buffer, value in buffers:
            buffer.copy_(value)


def _run(
    forward: Callable[..., Any], x: Tensor, kind: str, watched: list[nn.Module], wanted: list[nn.Parameter]
) -> tuple[Any, list[Tensor | None]]:
    """Run the forward as it is, and see that it leaves nothing behind and asks no other random generators."""
    with _generators_put_back() as drawn, attributes_put_back(watched[0], watched) as changed, _seeded(x):
        result, gradients = _with_gradients(lambda: forward(x.clone()), wanted)
        if changed():
            raise CannotCutError(f"the forward of {kind} sets attributes of a module, which would not be set.")
        if drawn():
            raise CannotCutError(f"the forward of {kind} draws from Python's or numpy's random numbers.")
    return result, gradients


def _with_gradients(call: Callable[[], Any], wanted: list[nn.Parameter]) -> tuple[Any, list[Tensor | None]]:
    """What is called returns, and the gradients of a sum of it; no ``grad`` is touched."""
    with torch.set_grad_enabled(bool(wanted)):
        result = call()
        outputs = [each for each in _pytree.tree_leaves(result) if isinstance(each, Tensor)]
        leaves = [each for each in outputs if each.requires_grad and each.is_floating_point()]
        # Other weights for each entry: those of a softmax, say, add up to a constant.
        sums = [(each * torch.linspace(0.5, 1.5, each.numel()).to(each).view_as(each)).sum() for each in leaves]
        gradients = torch.autograd.grad(sums, wanted, allow_unused=True) if sums else [None] * len(wanted)
    return result, list(gradients)


@contextmanager
def _generators_put_back() -> Iterator[Callable[[], bool]]:
    """Put back the state of Python's and numpy's generators; it gives what tells whether they were drawn from."""

    def state() -> tuple[Any, Any]:
        return random.getstate(), np.random.get_state()  # noqa: NPY002

    before = state()
    try:
        yield lambda: str(state()) != str(before)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def _compare_parts(
    found: FrozenFront,
    x: Tensor,
    kind: str,
    expected: Any,
    wanted: list[nn.Parameter],
    gradients: list[Tensor | None],
) -> None:
    features, again = found.front(x.clone()), found.front(x.clone())
    if not all(is_of_images(each, len(x)) for each in features):
        raise CannotCutError(f"what the frozen part of {kind} says has not one entry for each image.")
    if not all(torch.equal(one, two) for one, two in zip(features, again, strict=True)):
        raise CannotCutError(f"the frozen part of {kind} says something else each time that it sees an image.")
    one_alone, twice = found.front(x[:1].clone()), found.front(x[:1].repeat_interleave(len(x), 0))
    # Another batch size may be rounded otherwise; equal sizes are rounded alike, whatever the dtype.
    alone = says_the_same(one_alone, tuple(each[:1] for each in features))
    beside = all(_close(one[:1], two[:1], _FLOAT32) for one, two in zip(twice, features, strict=True))
    if not alone or not beside:
        raise CannotCutError(f"what the frozen part of {kind} says of an image depends on the others in its batch.")
    with _seeded(x):
        result, found_gradients = _with_gradients(lambda: found.rest(x.clone(), *features), wanted)
    ours, theirs = _pytree.tree_leaves(result), _pytree.tree_leaves(expected)
    same = len(ours) == len(theirs) and all(
        _close(one, two) if isinstance(one, Tensor) and isinstance(two, Tensor) else one == two
        for one, two in zip(ours, theirs, strict=True)
    )
    if not same:
        raise CannotCutError(f"the forward of {kind} does something that a trace of it does not show.")
    if not all(_same_gradient(*pair) for pair in zip(found_gradients, gradients, strict=True)):
        raise CannotCutError(
            f"the gradient of the forward of {kind} is not that of its trace, which shows no `torch.no_grad` and no "
            "autograd function of your own."
        )


def says_the_same(features: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    """Whether two batches of features, computed in batches of another size, are equal but for rounding."""
    return all(_close(one, two, _rounding(two)) for one, two in zip(features, others, strict=True))


@contextmanager
def _seeded(x: Tensor) -> Iterator[None]:
    """Draw the same random numbers each time, and none of those that come."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        yield


def _same_gradient(one: Tensor | None, two: Tensor | None) -> bool:
    if one is None or two is None:
        return one is two or not bool((two if one is None else one).any())  # type: ignore[union-attr]
    finite = bool(torch.isfinite(two).all())
    return not finite or _close(one, two, _rounding(two))


def _rounding(features: Tensor) -> float:
    """Unit of rounding in what has led to these, at worst: a GPU multiplies float32 as TensorFloat-32."""
    kind = features.device.type
    steps = [torch.finfo(features.dtype).eps] if features.is_floating_point() else [0.0]
    if torch.is_autocast_enabled(kind):
        steps.append(torch.finfo(torch.get_autocast_dtype(kind)).eps)
    if kind == "cuda" and features.dtype is torch.float32:
        steps.append(2.0**-10)
    return max(steps)


def _close(one: Tensor, two: Tensor, rounding: float | None = None) -> bool:
    """Equal but for rounding, by default that of the dtype."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, two)
    if not two.numel():
        return True
    allowed = min(100 * (torch.finfo(one.dtype).eps if rounding is None else rounding), 0.1)
    return bool((one - two).abs().max() <= allowed * two.abs().max().clamp(min=1e-30))
