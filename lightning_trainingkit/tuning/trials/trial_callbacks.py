"""Check the callbacks that a user gives to trials, and say which of them cannot be sent to a process."""

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_trainingkit._lightning import L, WeightAveraging

__all__ = ["check_callbacks", "why_not_pickled"]


def check_callbacks(callbacks: Any) -> Sequence[L.Callback]:
    """Return the callbacks, or refuse what is no list of them.

    Raises:
        TypeError: If ``callbacks`` is no list, or holds a class or another object.
    """
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise TypeError(f"`callbacks` must be a list of callbacks, got {callbacks!r}. Write it in a list.")
    for each in callbacks:
        if isinstance(each, type):
            raise TypeError(f"`callbacks` must hold objects, got the class {each.__name__}. Write {each.__name__}().")
        if not isinstance(each, L.Callback):
            raise TypeError(
                f"`callbacks` must hold callbacks of {L.__name__}, got {each!r}. Give objects of classes that inherit "
                "from its Callback."
            )
    return callbacks


def why_not_pickled(callbacks: Sequence[L.Callback], options: Mapping[str, Any], error: Exception) -> str:
    """Say which callback or argument of the Trainer cannot be pickled, and what to do.

    Args:
        callbacks: The callbacks.
        options: Arguments of the Trainer.
        error: The error of them together.
    """
    advice = "Write classes and functions at the top of a file, and give objects that have not been used yet."
    for each in callbacks:
        if why := _error(each):
            if isinstance(each, WeightAveraging):  # EMAWeightAveraging makes a function within a function
                advice = (
                    "Write a function `f` at the top of a file, and give WeightAveraging(avg_fn=f), as "
                    "recipes/seven_steps.py does."
                )
            return f"`callbacks` must be picklable, got {type(each).__name__}: {why}. {advice}"
    for name, value in options.items():
        if why := _error(value):
            return f"`trainer_options` must be picklable, got {name}={value!r}: {why}. {advice}"
    return f"`callbacks` and `trainer_options` must be picklable, got {error}. {advice}"


def _error(value: Any) -> str:
    try:
        pickle.dumps(value)
    except Exception as error:
        return str(error).rstrip(".") or type(error).__name__
    return ""
