"""Checks of arguments, each with one wording for its error."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from math import isfinite
from numbers import Integral, Real
from operator import ge, gt, le, lt
from typing import Any

__all__ = ["flag", "integer", "nearest", "number", "one_of", "share"]


def integer(name: str, value: Any, hint: str, *, least: int | None = None) -> int:
    """Return an integer argument as Python's ``int``, which any checkpoint can hold.

    Args:
        name: Name of the argument.
        value: Value that the user gave.
        hint: Sentence that tells the user what to do.
        least: Smallest allowed value.

    Raises:
        TypeError: If the value is no integer. True and False are refused.
        ValueError: If the value is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer, got {value!r}. {hint}")
    if least is not None and value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}. {hint}")
    return int(value)


def number(
    name: str,
    value: Any,
    hint: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """Return a finite number as Python's ``float``, which any checkpoint can hold.

    Args:
        name: Name of the argument.
        value: Value that the user gave.
        hint: Sentence that tells the user what to do.
        least: Smallest allowed value.
        above: Bound that the value must exceed.
        most: Largest allowed value.
        below: Bound that the value must stay below.

    Raises:
        TypeError: If the value is no number. True and False are refused.
        ValueError: If the value is outside its bounds, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}. {hint}")
    given = float(value)
    bounds = {"at least": (least, ge), "above": (above, gt), "at most": (most, le), "below": (below, lt)}
    wanted = [(word, bound, compare) for word, (bound, compare) in bounds.items() if bound is not None]
    rules = [f"{word} {bound:g}" for word, bound, _ in wanted]
    if not isfinite(given):
        raise ValueError(f"`{name}` must be {' and '.join(['finite', *rules])}, got {value}. {hint}")
    if not all(compare(given, bound) for _, bound, compare in wanted):
        raise ValueError(f"`{name}` must be {' and '.join(rules)}, got {value}. {hint}")
    return given


def share(name: str, value: Any, hint: str) -> float:
    """Return a share, a number above 0 and below 1.

    Raises:
        TypeError: If the value is no number.
        ValueError: If the value is outside its bounds.
    """
    return number(name, value, hint, above=0, below=1)


def flag(name: str, value: Any) -> bool:
    """Return a value that must be True or False.

    Raises:
        TypeError: If the value is no boolean.
    """
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}. Write {name}=True, say.")
    return value


def one_of(name: str, value: Any, choices: Iterable[Any], hint: str) -> None:
    """Check that a value is one of the choices.

    Raises:
        ValueError: If it is none of the choices.
    """
    known = list(choices)
    if not any(value is each or (type(value) is type(each) and value == each) for each in known):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}. {hint}")


def nearest(name: str, known: Iterable[str], most: int = 8) -> list[str]:
    """List known names, the nearest to a name or a pattern first: ``most`` names, or 20 if none is near.

    Example:
        >>> nearest("fc*", ["model.conv1", "model.layer1.conv1", "model.fc"], 2)
        ['model.fc', 'model.conv1']
    """
    word = name.lower().replace("*", "")
    ratios = {each: SequenceMatcher(None, word, each.lower()).ratio() for each in dict.fromkeys(known) if each}
    ranked = sorted(ratios, key=lambda each: -ratios[each])
    return ranked[: most if ranked and ratios[ranked[0]] >= 0.3 else 20]
