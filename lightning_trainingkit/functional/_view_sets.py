"""Single views of images by name, their functions, and the named sets of views."""

import ast
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as pixels

from lightning_trainingkit.functional.gain import split_call

__all__ = ["Transform", "compose", "identity", "read_set", "read_view", "same_step", "steps_of"]

Transform = Callable[[Tensor], Tensor]
"""Images ``(N, C, H, W)`` to images ``(N, C, H', W')``."""


def identity(x: Tensor) -> Tensor:
    """Return ``x`` itself."""
    return x


def compose(transforms: Sequence[Transform]) -> Transform:
    """Return the function that runs ``transforms`` one after the other. It pickles if they do."""
    needed = [step for transform in transforms for step in steps_of(transform)]
    if len(needed) < 2:
        return needed[0] if needed else identity
    return partial(_one_by_one, tuple(needed))


def steps_of(transform: Transform) -> tuple[Transform, ...]:
    """Return the functions that ``compose`` has joined, none for the identity."""
    if isinstance(transform, partial) and transform.func is _one_by_one:
        steps: tuple[Transform, ...] = transform.args[0]
        return steps
    return () if transform is identity else (transform,)


def _one_by_one(transforms: Sequence[Transform], x: Tensor) -> Tensor:
    for transform in transforms:
        x = transform(x)
    return x


def same_step(one: Transform, other: Transform) -> bool:
    """Whether two steps are the same function of this file. A user's function may return something new in each call."""
    function = one.func if isinstance(one, partial) else one
    return one is other and any(function is known for known in _FUNCTIONS)


def _flip(dim: int, x: Tensor) -> Tensor:
    return x.flip(dim)


def _rotate(turns: int, x: Tensor) -> Tensor:
    return torch.rot90(x, turns, (-2, -1))


def _scale(side: int, x: Tensor) -> Tensor:
    resized: Tensor = pixels.resize(x, [side], antialias=True)
    return resized


def _shift(dx: int, dy: int, x: Tensor, *, asked: str) -> Tensor:
    height, width = x.shape[-2:]
    if abs(dx) >= width or abs(dy) >= height:
        raise ValueError(
            f"`{asked}` must move images by less than their side, got images of {height} x {width} (height x width). "
            "Use a smaller shift."
        )
    padded: Tensor = pixels.pad(x, [max(dx, 0), max(dy, 0), max(-dx, 0), max(-dy, 0)], padding_mode="reflect")
    moved: Tensor = pixels.crop(padded, max(-dy, 0), max(-dx, 0), height, width)
    return moved


def _crop(place: str, size: int | tuple[int, int], x: Tensor, *, asked: str) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    below, beside = x.shape[-2] - height, x.shape[-1] - width
    if below < 0 or beside < 0:
        raise ValueError(
            f"`{asked}` must be no larger than the images, got images of {x.shape[-2]} x {x.shape[-1]} (height x "
            f"width). Use a smaller crop, or put scales({round(max(height, width) * 8 / 7)}) before it."
        )
    if place == "centre":
        top, left = round(below / 2), round(beside / 2)  # as in torchvision
    else:
        top, left = below * place.startswith("bottom"), beside * place.endswith("right")
    return x[..., top : top + height, left : left + width]  # torchvision's crop searches for a kernel in each pass


_FUNCTIONS = (_flip, _rotate, _scale, _shift, _crop)


class _Form(NamedTuple):
    """The arguments that a name takes: their text, rule, example and test."""

    shown: str
    rule: str
    example: str
    fits: Callable[[list[Any]], bool]


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def _size(value: Any) -> bool:
    return _positive(value) or (type(value) is tuple and len(value) == 2 and all(map(_positive, value)))


_NONE = _Form("", "without arguments", "", lambda given: not given)
_PIXELS = _Form("(p)", "with p a positive integer", "(2)", lambda given: len(given) == 1 and _positive(given[0]))
_SIDE = _Form("(s)", "with s a positive integer", "(256)", _PIXELS.fits)
_SIDES = _Form(
    "(s1, s2, ...)", "with positive integers", "(256, 480)", lambda given: 0 < sum(map(_positive, given)) == len(given)
)
_SIZE = _Form(
    *("(s)", "with s a positive integer or a pair (height, width) of them", "(224)"),
    lambda given: len(given) == 1 and _size(given[0]),
)
_OFFSET = _Form(
    *("(dx, dy)", "with two integers, pixels to the right and down", "(1, 0)"),
    lambda given: [type(value) for value in given] == [int, int],
)
_MAY_NOT_FIT = (_SIZE, _OFFSET)

_VIEWS: dict[str, tuple[_Form, Callable[..., Tensor]]] = {
    "identity": (_NONE, identity),
    "hflip": (_NONE, partial(_flip, -1)),
    "vflip": (_NONE, partial(_flip, -2)),
    "rot90": (_NONE, partial(_rotate, 1)),
    "rot180": (_NONE, partial(_rotate, 2)),
    "rot270": (_NONE, partial(_rotate, 3)),
    "shift": (_OFFSET, _shift),
    "scale": (_SIDE, _scale),
    "top_left": (_SIZE, partial(_crop, "top_left")),
    "top_right": (_SIZE, partial(_crop, "top_right")),
    "bottom_left": (_SIZE, partial(_crop, "bottom_left")),
    "bottom_right": (_SIZE, partial(_crop, "bottom_right")),
    "centre_crop": (_SIZE, partial(_crop, "centre")),
}


def _moved(*offsets: tuple[int, int]) -> list[str]:
    return [f"shift{offset}" for offset in offsets]


def _mirrored(views: Sequence[str]) -> list[str]:
    return [f"{view}>hflip" for view in views]


def _five(size: int | tuple[int, int]) -> list[str]:
    return [f"{place}({size})" for place in ("top_left", "top_right", "bottom_left", "bottom_right", "centre_crop")]


def _ten(size: int | tuple[int, int]) -> list[str]:
    return [*_five(size), *_mirrored(_five(size))]


_SETS: dict[str, tuple[_Form, Callable[..., list[str]]]] = {
    "identity": (_NONE, lambda: ["identity"]),
    "flip": (_NONE, lambda: ["identity", "hflip"]),
    "vertical_flip": (_NONE, lambda: ["identity", "vflip"]),
    "rotations": (_NONE, lambda: ["identity", "rot90", "rot180", "rot270"]),
    "shifts": (_PIXELS, lambda p: ["identity", *_moved((0, -p), (0, p), (-p, 0), (p, 0))]),
    "scales": (_SIDES, lambda *sides: [f"scale({side})" for side in sides]),
    "five_crop": (_SIZE, _five),
    "ten_crop": (_SIZE, _ten),
    "resnet_multi_scale": (
        _NONE,
        lambda: [f"scale({side})>{crop}" for side in (224, 256, 384, 480, 640) for crop in _ten(224)],
    ),
    "airbench": (
        _NONE,
        lambda: ["identity", "hflip", *_moved((-1, -1), (1, 1)), *_mirrored(_moved((-1, -1), (1, 1)))],
    ),
}
_WEIGHTS = {"airbench": [0.25] * 2 + [0.125] * 4}


def read_set(text: str) -> list[tuple[str, float, Transform]]:
    """Read the name of a set of views, such as ``"ten_crop(224)"``, into name, weight and function of each view.

    Raises:
        ValueError: If the name is unknown or its arguments don't fit.
    """
    hint = ""
    if all(split_call(part)[0] in _VIEWS for part in text.split(">")):
        hint = f"It is a single view, and goes into a list inside the list: [['identity', {text!r}]]. "
    name, arguments, views = _read(text, _SETS, "a set of views", hint)
    names = views(*arguments)
    weights = _WEIGHTS.get(name, [1 / len(names)] * len(names))
    known: dict[str, Transform] = {}  # one function for each part, so that views can share it
    return [(each, weight, read_view(each, text, known)[1]) for each, weight in zip(names, weights, strict=True)]


def read_view(text: str, asked: str | None = None, known: dict[str, Transform] | None = None) -> tuple[str, Transform]:
    """Read a view of one or more steps, such as ``"scale(256)>top_left(224)>hflip"``, into one name and one function.

    Args:
        text: Names of the views, in the order of their calls.
        asked: The user's text, if it differs, for errors when the view is called.
        known: Functions by name that were made before. New ones are added.

    Raises:
        ValueError: If a name is unknown or its arguments don't fit.
    """
    names, transforms = [], []
    for part in text.split(">"):
        hint = "It is a set of views, and goes into the outer list. " if split_call(part)[0] in _SETS else ""
        name, arguments, function = _read(part, _VIEWS, "a single view", hint)
        named = {"asked": asked or part.strip()} if _VIEWS[name][0] in _MAY_NOT_FIT else {}
        names.append(f"{name}({', '.join(map(str, arguments))})" if arguments else name)
        made = partial(function, *arguments, **named) if arguments else function
        transforms.append(made if known is None else known.setdefault(names[-1], made))
    return ">".join(names), compose(transforms)


def _read(
    text: str, known: Mapping[str, tuple[_Form, Callable[..., Any]]], kind: str, hint: str
) -> tuple[str, list[Any], Callable[..., Any]]:
    """Return the name, the arguments, and the entry of ``known`` for the name."""
    name, argument = split_call(text)
    if name not in known:
        near = [close + known[close][0].shown for close in get_close_matches(name.lower(), known)]
        if near and not hint:
            hint = f"Did you mean {' or '.join(near)}? "
        names = ", ".join(each + form.shown for each, (form, _) in known.items())
        raise ValueError(f"`views` must be the name of {kind}, got {text!r}. {hint}Choose from {names}.")
    form, value = known[name]
    try:
        arguments = ast.literal_eval(f"[{argument or ''}]")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        arguments = None
    if arguments is None or not form.fits(arguments):
        raise ValueError(
            f"`views` must be {name}{form.shown} {form.rule}, got {text!r}. Write it like {name}{form.example}."
        )
    return name, arguments, value
