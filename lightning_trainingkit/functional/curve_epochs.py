"""Put the curves of one training on a common grid of epochs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CURVES", "FEWEST_EPOCHS", "Epochs", "by_epoch"]

CURVES = ("train_loss", "val_loss", "train_acc", "val_acc", "rate")
"""Names of the curves that the rules read."""

FEWEST_EPOCHS = 5
"""Epochs, or bins of a training without validation, that trends and gaps need."""

_MOST_BINS = 30
"""Bins of a training without validation, or with hardly any."""

_MOST_EPOCHS = 200
"""Validations of a longer training are averaged: the rules compare all pairs of epochs."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Epochs:
    """Curves on one grid. An epoch ends where validation was logged.

    Args:
        ends: Last step of each epoch, shape ``(E,)``.
        train_loss: Mean training loss within each epoch.
        val_loss: Validation loss after each epoch, or None.
        train_acc: Mean training accuracy within each epoch, or None.
        val_acc: Validation accuracy after each epoch, or None.
        rate: Learning rate at the end of each epoch, or None.
        first_loss: The training loss before the first step, as far as the logged values tell it.
        peak_loss: The highest mean training loss within a quarter of an epoch.
        broken: Step of the first loss that is not finite, or None.
    """

    ends: Floats
    train_loss: Floats
    val_loss: Floats | None
    train_acc: Floats | None
    val_acc: Floats | None
    rate: Floats | None
    first_loss: float
    peak_loss: float
    broken: float | None


def by_epoch(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Epochs:
    """Average training values within epochs, and line up validation values with them.

    Without validation, or with less than five values of it, 30 bins of equally many points take the place of epochs.
    Values that are not finite are left out of means. Accuracies in percent become shares.

    Args:
        curves: Steps and values of each curve, by the names in ``CURVES``. ``train_loss`` must be among them.

    Returns:
        The curves, each of shape ``(E,)``.
    """
    points = {name: _sorted(*curves[name]) for name in CURVES if name in curves}
    broken = [
        steps[~np.isfinite(values)].min()
        for name, (steps, values) in points.items()
        if name in ("train_loss", "val_loss") and not np.isfinite(values).all()
    ]
    finite = {
        name: (steps[np.isfinite(values)], values[np.isfinite(values)]) for name, (steps, values) in points.items()
    }
    steps, losses = finite["train_loss"]
    held_out = next((name for name in ("val_loss", "val_acc") if name in finite and len(finite[name][0])), None)
    ends = np.unique(finite[held_out][0]) if held_out is not None else np.empty(0)
    if len(ends) < FEWEST_EPOCHS and len(steps) >= 2 * _MOST_BINS:  # the training loss alone says more
        held_out = None
        finite = {name: points for name, points in finite.items() if not name.startswith("val")}
    if held_out is None:
        ends = np.unique(steps[np.linspace(0, len(steps) - 1, min(_MOST_BINS, len(steps)) + 1).astype(int)[1:]])
    many = len(ends) > _MOST_EPOCHS
    if many:
        ends = ends[np.linspace(0, len(ends) - 1, _MOST_EPOCHS + 1).astype(int)[1:]]

    def on_grid(name: str) -> Floats | None:
        if name not in finite or not len(finite[name][0]):
            return None
        mean = name.startswith("train") or (many and name.startswith("val"))
        values = _means(*finite[name], ends) if mean else np.interp(ends, *finite[name])
        return values / 100 if name.endswith("acc") and values.max() > 1.5 else values

    train_loss = on_grid("train_loss")
    return Epochs(
        ends,
        np.empty(0) if train_loss is None else train_loss,
        on_grid("val_loss"),
        on_grid("train_acc"),
        on_grid("val_acc"),
        on_grid("rate"),
        _first(losses, len(ends)),
        _peak(losses, len(ends)),
        float(min(broken)) if broken else None,
    )


def _first(losses: Floats, bins: int) -> float:
    """The loss before training: of steps a median, since batches differ, but not where it has risen by then."""
    if not len(losses):
        return np.nan
    if len(losses) < 10 * bins:
        return float(losses[0])
    end = losses[-len(losses) // 10 :].mean()
    return float(min(np.median(losses[:10]), max(1.3 * losses[0], end)))


def _peak(losses: Floats, bins: int) -> float:
    if not len(losses):
        return np.nan
    width = max(1, len(losses) // (4 * bins))  # single batches may have outliers
    return float(np.convolve(losses, np.ones(width) / width, "valid").max())


def _sorted(steps: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    at, found = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    order = np.argsort(at, kind="stable")
    return at[order], found[order]


def _means(steps: Floats, values: Floats, ends: Floats) -> Floats:
    """Mean of the values within each epoch. An epoch without values is interpolated."""
    epoch = np.minimum(np.searchsorted(ends, steps), len(ends) - 1)
    counts = np.bincount(epoch, minlength=len(ends))
    means = np.bincount(epoch, weights=values, minlength=len(ends)) / np.maximum(counts, 1)
    held = counts > 0
    return np.asarray(np.interp(ends, ends[held], means[held]), dtype=np.float64)
