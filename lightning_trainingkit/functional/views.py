"""Views of images: the same images flipped, moved, scaled or cropped, with weights for an average."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

from torch import Tensor

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional._view_sets import (
    Transform,
    compose,
    identity,
    read_set,
    read_view,
    same_step,
    steps_of,
)

__all__ = ["View", "make_views"]


@dataclass(frozen=True)
class View:
    """One view of a batch of images: a name, a weight and a function.

    Args:
        name: Its steps, from first to last, such as ``"scale(256)>top_left(224)>hflip"``.
        weight: Its weight in the average, positive. The weights of a list of views sum to 1.
        transform: Function from images ``(N, C, H, W)`` to images ``(N, C, H', W')``; it must not change its input.

    Raises:
        ValueError: If ``weight`` is not a positive number.

    Example:
        >>> import torch
        >>> View("squashed", 1.0, torch.nn.Tanh())(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    name: str
    weight: float
    transform: Transform = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        _check.number("weight", self.weight, "Leave out a view that doesn't count.", above=0)

    @property
    def steps(self) -> tuple[Transform, ...]:
        """The functions that the view calls one after the other."""
        return steps_of(self.transform)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the view of the images ``(N, C, H, W)``.

        Raises:
            TypeError: If ``x`` is not a tensor.
            ValueError: If ``x`` does not have four dimensions, or is too small for the view.
        """
        _check_images(x, "x", "be")
        return self.transform(x)


def make_views(views: str | Callable[[Tensor], Tensor] | Sequence[Any]) -> list[View]:
    """Make the views that strings, functions and lists of them describe.

    A list is a composition of stages: each view of the second stage follows each view of the first stage, and so on.
    The numbers of views multiply, and so do the weights: ``["scales(256, 480)", "ten_crop(224)"]`` has 20. A stage is

    - the name of a set of views, with equal weights except for ``airbench``:

      - ``"identity"``: the images as they are;
      - ``"flip"``, ``"vertical_flip"``: as they are, and mirrored left-right or upside down;
      - ``"rotations"``: by 0, 90, 180 and 270 degrees, counterclockwise;
      - ``"shifts(p)"``: as they are, and moved by ``p`` pixels up, down, left and right, the border reflected;
      - ``"scales(s1, s2, ...)"``: the shorter side resized to each ``s`` pixels, aspect kept, bilinear, antialiased;
      - ``"five_crop(s)"``: the corners and the centre, ``s`` x ``s``, or ``"five_crop((h, w))"``;
      - ``"ten_crop(s)"``: the same and their mirror images;
      - ``"resnet_multi_scale"``: ``["scales(224, 256, 384, 480, 640)", "ten_crop(224)"]``, the lecture's 50;
      - ``"airbench"``: as they are and moved by one pixel up-left and down-right, each with its mirror image. The first
        two weigh 0.25 each, the other four 0.125. Its author averages logits;

    - your own function ``f``: the images as they are, and ``f(images)``. It must not change its input;
    - a list inside the list: exactly these views, with equal weights. Each is a function or a name: ``identity``,
      ``hflip``, ``vflip``, ``rot90``, ``rot180``, ``rot270``, ``shift(dx, dy)`` (right and down), ``scale(s)``,
      ``centre_crop(s)``, ``top_left(s)``, ``top_right(s)``, ``bottom_left(s)``, ``bottom_right(s)``, or several such
      names in a row, ``"scale(256)>centre_crop(224)"``;
    - a list of `View` objects: exactly these, with their weights.

    Images may be floats or bytes; their dtype is kept. Crops are slices of the images, and ``identity`` is the images
    themselves, so neither copies. Views pickle if your own functions do. In an average, consecutive views by name share
    their common first steps: the crops of one scale resize the images once.

    Args:
        views: A stage, or a list of stages.

    Returns:
        The views in the order of the product, the last stage running fastest. Their weights sum to 1.

    Raises:
        ValueError: If a name is unknown, its arguments don't fit, a list is empty, or the weights of given `View`
            objects don't sum to 1.
        TypeError: If a stage is none of the above.

    Example:
        >>> [view.name for view in make_views(["scales(36)", "flip"])]
        ['scale(36)', 'scale(36)>hflip']
        >>> make_views("airbench")[-1]
        View(name='shift(1, 1)>hflip', weight=0.125)
        >>> import torch
        >>> [tuple(view(torch.rand(2, 3, 32, 40)).shape) for view in make_views([["rot90", "centre_crop(28)"]])]
        [(2, 3, 40, 32), (2, 3, 28, 28)]

    References:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012 (ten crops).
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385 (several scales).
        Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498 (airbench).
    """
    stages: list[Any] = [views] if isinstance(views, str) or not isinstance(views, Sequence) else list(views)
    if not stages:
        raise ValueError("`views` must hold a stage, got an empty list. For the images as they are, write 'identity'.")
    if all(isinstance(stage, View) for stage in stages):
        stages = [stages]
    return [_in_a_row(combination) for combination in product(*map(_stage, stages))]


def _stage(stage: Any) -> list[View]:
    if isinstance(stage, str):
        return [View(name, weight, transform) for name, weight, transform in read_set(stage)]
    if isinstance(stage, View):
        return _given([stage])
    if callable(stage):
        return [View("identity", 0.5, identity), View(_name(stage), 0.5, partial(_users, stage))]
    if not isinstance(stage, Sequence):
        raise TypeError(
            f"`views` must hold names of sets of views, functions and lists, got {stage!r}. Write it like "
            "['scales(256)', 'ten_crop(224)']."
        )
    return _single_views(list(stage))


def _single_views(stage: list[Any]) -> list[View]:
    if not stage:
        raise ValueError("`views` must hold no empty list, got []. Name a view in it, or leave it out.")
    if all(isinstance(each, View) for each in stage):
        return _given(stage)
    singles = []
    for each in stage:
        if isinstance(each, str):
            singles.append(read_view(each))
        elif callable(each) and not isinstance(each, View):
            singles.append((_name(each), partial(_users, each)))
        else:
            raise TypeError(
                f"`views` must hold names and functions, or only View objects, in a list inside the list, got {each!r} "
                f"in {stage!r}. A composition goes into the outer list."
            )
    return [View(name, 1 / len(singles), transform) for name, transform in singles]


def _given(views: list[View]) -> list[View]:
    total = math.fsum(view.weight for view in views)
    if abs(total - 1) > 1e-6:
        raise ValueError(
            f"`views` must have weights that sum to 1, got the sum {total:g} of {[view.name for view in views]}. "
            f"Divide them by {total:g}."
        )
    return [_checked(view) for view in views]


def _checked(view: View) -> View:
    """Check the result of a view in each call, unless its steps are the kit's or checked already."""
    known = [same_step(each, each) or (isinstance(each, partial) and each.func is _users) for each in view.steps]
    return view if all(known) else replace(view, transform=partial(_users, view.transform))


def _in_a_row(views: Sequence[View]) -> View:
    if len(views) == 1:
        return views[0]
    names = [view.name for view in views if view.transform is not identity]
    weight = math.prod(view.weight for view in views)
    return View(">".join(names) or "identity", weight, compose([view.transform for view in views]))


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _users(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Call a function of the user, and check its result."""
    viewed = function(x.clone())  # it may write into its input
    _check_images(viewed, _name(function), "return")
    if len(viewed) != len(x):
        raise ValueError(
            f"`{_name(function)}` must return as many images as it gets, {len(x)}, got {len(viewed)}. Give each view "
            "as a separate function."
        )
    return viewed


def _check_images(x: Any, name: str, verb: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must {verb} a tensor of images, got {type(x).__name__}. Stack images into one.")
    if x.ndim != 4:
        raise ValueError(
            f"`{name}` must {verb} images of shape (N, C, H, W), got shape {tuple(x.shape)}. A single image needs "
            "unsqueeze(0)."
        )
