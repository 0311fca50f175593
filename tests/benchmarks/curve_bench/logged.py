"""What a project would have logged of a training: all steps or epoch means, with or without accuracy and rate."""

from typing import Any

import numpy as np

__all__ = ["Logged", "logged"]

Logged = dict[str, tuple[np.ndarray, np.ndarray]]
"""Steps and values by the names of ``functional.curve_epochs``."""


def logged(settings: dict[str, Any], curves: dict[str, list[float]]) -> Logged:
    """The curves that the rules and their peers may see."""
    steps, ends = np.array(curves["steps"]), np.array(curves["ends"])
    found: Logged = {"val_loss": (ends, np.array(curves["val_loss"]))}
    by_step = settings["logged"] == "steps"
    for name in ("train_loss", "train_acc"):
        if len(values := np.array(curves[name])):
            found[name] = (steps, values) if by_step else (ends, _means(steps, values, ends))
    if curves["val_acc"]:
        found["val_acc"] = (ends, np.array(curves["val_acc"]))
    if settings["logged"] == "losses":
        found = {name: points for name, points in found.items() if not name.endswith("acc")}
    if settings["logs_rate"]:
        rates = np.array(curves["rates"])
        found["rate"] = (steps, rates) if by_step else (ends, rates[ends])
    return found


def _means(steps: np.ndarray, values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    epoch = np.searchsorted(ends, steps)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.bincount(epoch, weights=values) / np.bincount(epoch)
