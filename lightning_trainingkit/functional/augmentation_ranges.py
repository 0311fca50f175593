"""Checks of the ranges that an augmentation draws from."""

from collections.abc import Sequence
from typing import Any, cast

from lightning_trainingkit.functional import _check

__all__ = [
    "Pair",
    "around",
    "axes_of",
    "between",
    "pair",
    "probability",
    "shares",
    "shears",
    "size_of",
    "three",
    "within",
]

Pair = tuple[float, float]


def pair(value: float | Sequence[float]) -> Pair:
    """Return a range that `Augmentation` has checked, as the pair that it is."""
    low, high = cast(Sequence[float], value)
    return low, high


def probability(name: str, value: Any) -> float:
    """Return a probability, a number from 0 to 1."""
    return _check.number(name, value, "0 leaves the step out, 1 applies it to each image.", least=0, most=1)


def between(name: str, value: Any, hint: str, **bounds: float) -> Pair:
    """Return a range ``(low, high)`` that the user wrote as two numbers.

    Raises:
        TypeError: If the value is no sequence, or holds no numbers.
        ValueError: If there are not two numbers, they are reversed, or one is outside the bounds.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a range (low, high), got {value!r}. {hint}")
    if len(value) != 2:
        raise ValueError(f"`{name}` must be a range of two numbers, got {value!r}. {hint}")
    low, high = (_check.number(name, each, hint, **bounds) for each in value)
    if low > high:
        raise ValueError(f"`{name}` must be a range (low, high) with low <= high, got {value!r}. Swap the two.")
    return low, high


def within(name: str, value: Any, hint: str, *, most: float | None = None) -> Pair:
    """Return the range ``(-value, value)`` of a number, or a range as it is."""
    if isinstance(value, Sequence):
        return between(name, value, hint, **({} if most is None else {"least": -most, "most": most}))
    limit = _check.number(name, value, hint, least=0, most=most)
    return -limit, limit


def around(name: str, value: Any) -> Pair:
    """Return the range of a factor: ``(max(0, 1 - value), 1 + value)`` of a number, or a range as it is."""
    hint = "0.4 stands for a factor from 0.6 to 1.4. Ranges such as (0.6, 1.4) are allowed too."
    if isinstance(value, Sequence):
        return between(name, value, hint, least=0)
    half = _check.number(name, value, hint, least=0)
    return max(0.0, 1 - half), 1 + half


def shares(name: str, value: Any) -> Pair:
    """Return the largest shares of width and of height, which one number gives for both."""
    hint = "0.1 moves images by up to a tenth of their width and height, (0.1, 0.2) by other shares."
    if not isinstance(value, Sequence):
        value = (value, value)
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"`{name}` must be one share or the shares (width, height), got {value!r}. {hint}")
    x, y = (_check.number(name, each, hint, least=0, most=1) for each in value)
    return x, y


def shears(name: str, value: Any) -> tuple[float, float, float, float]:
    """Return the ranges of degrees along x and along y; a number or a range is along x alone."""
    hint = "Write 10 for -10 to 10 degrees along x, (low, high) along x, or four numbers for x and y."
    if not isinstance(value, Sequence):
        limit = _check.number(name, value, hint, least=0, below=90)
        return -limit, limit, 0.0, 0.0
    along_x = value[:2] if len(value) == 4 else value
    along_y = value[2:] if len(value) == 4 else (0.0, 0.0)
    bounds = {"above": -90, "below": 90}
    return *between(name, along_x, hint, **bounds), *between(name, along_y, hint, **bounds)


def three(name: str, value: Any) -> tuple[float, float, float]:
    """Return three numbers, one for each of the colours or directions."""
    hint = "Leave it out for ImageNet's."
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"`{name}` must hold three numbers, got {value!r}. {hint}")
    first, second, third = (_check.number(name, each, hint) for each in value)
    return first, second, third


def axes_of(name: str, value: Any) -> tuple[tuple[float, float, float], ...]:
    """Return three rows of three numbers."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"`{name}` must hold three rows of three numbers, got {value!r}. Leave it out for ImageNet's.")
    return tuple(three(name, row) for row in value)


def size_of(name: str, value: Any) -> tuple[int, int]:
    """Return a height and a width, which one integer gives for both."""
    hint = "Write 28, or (28, 32) for height and width."
    if not isinstance(value, Sequence):
        value = (value, value)
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"`{name}` must be a size in pixels, got {value!r}. {hint}")
    height, width = (_check.integer(name, each, hint, least=1) for each in value)
    return height, width
