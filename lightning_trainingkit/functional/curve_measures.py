"""The numbers about train and validation curves from which their shape is named."""

from dataclasses import dataclass

import numpy as np

from lightning_trainingkit.functional.curve_epochs import Epochs, Floats

__all__ = ["CurveMeasures", "last", "measure", "smooth"]

_TINY = 1e-100
"""No ratio has a smaller denominator."""

_FLOOR = 0.05
"""Differences are shares of the loss at the end, or of this share of the first loss if the end is lower."""

_LEAD_FLOOR = 0.01
"""The same of ``lead``, which tells whether tiny losses are equal."""


@dataclass(frozen=True)
class CurveMeasures:
    """Numbers about one training. None but ``start`` depends on the unit of the loss.

    The judged loss is the loss on validation, or on training if there is no validation.

    Args:
        epochs: Number of epochs.
        validated: Whether there is a loss on validation.
        broken: Step of the first loss that is not finite, or None.
        negative: Whether a loss is below zero, so that shares of it mean nothing.
        peak: Highest training loss, relative to the first.
        end: Training loss at the end, relative to the first.
        best: Lowest training loss, relative to the first.
        start: First training loss of an epoch, in its own unit.
        plunge: Training loss of an epoch relative to the next one's, where that is largest.
        drop: First training loss of an epoch, relative to the median of the later ones.
        settled: Training loss of the second epoch, relative to the end.
        level: Judged loss at the end, relative to the first training loss.
        fell: Share of the judged loss that the last third of the training took away.
        fell_error: Standard error of ``fell``.
        pace: How fast the judged loss falls in the last sixth, relative to the last third.
        jumps: Typical jump of the judged loss between epochs in the second half, as a share of all that it gained.
        shake: The same jump as a share of the judged loss at the end.
        train_shake: The same of the training loss.
        rise: Loss on validation at the end above its lowest, as a share of the loss at the end.
        turn: The same in typical jumps.
        gap: Loss on validation minus loss on training at the end, as a share of the loss on validation.
        lead: Typical loss on training minus loss on validation in the second half, as a share of the loss on training.
        acc: Accuracy on validation at the end, on training without validation, or None.
        learned: Accuracy on training, or on validation without it, at the end minus after the first epoch, or None.
        rate_left: Learning rate at the end, as a share of the highest, or None.
    """

    epochs: int
    validated: bool
    broken: float | None
    negative: bool = False
    peak: float = 0.0
    end: float = 0.0
    best: float = 0.0
    start: float = 0.0
    plunge: float = 1.0
    drop: float = 1.0
    settled: float = 1.0
    level: float = 0.0
    fell: float = 0.0
    fell_error: float = 0.0
    pace: float = 0.0
    jumps: float = 0.0
    shake: float = 0.0
    train_shake: float = 0.0
    rise: float = 0.0
    turn: float = 0.0
    gap: float = 0.0
    lead: float = 0.0
    acc: float | None = None
    learned: float | None = None
    rate_left: float | None = None

    @property
    def judged(self) -> str:
        """Whose loss is judged, in words."""
        return "validation" if self.validated else "training"


def measure(epochs: Epochs) -> CurveMeasures:
    """Measure curves on their common grid."""
    train, val, count = epochs.train_loss, epochs.val_loss, len(epochs.train_loss)
    validated = val is not None
    if not count:
        return CurveMeasures(0, validated, epochs.broken)
    judged = train if val is None else val
    first = epochs.first_loss
    unit = max(abs(first), _TINY)
    end, train_end = last(judged), last(train)
    low, val_low = float(smooth(train, 3).min()), float(smooth(judged, 3).min())
    third = max(3, count // 3)
    floor = max(abs(end), _FLOOR * unit)
    jump = _jump(judged)
    slope = theil_sen(judged[-third:])
    # few points lie on a line by chance: their scatter is no smaller than that of the second half
    error = jump / float(np.std(np.arange(third)) * np.sqrt(third))
    return CurveMeasures(
        epochs=count,
        validated=validated,
        broken=epochs.broken,
        negative=bool(min(train.min(), judged.min(), first) < 0),
        peak=epochs.peak_loss / unit,
        end=train_end / unit,
        best=low / unit,
        start=float(train[0]),
        plunge=float((train[:-1] / np.maximum(train[1:], _TINY)).max()) if count > 1 else 1.0,
        drop=float(train[0] / max(np.median(train[1:]), _TINY)) if count > 1 else 1.0,
        settled=float(train[min(1, count - 1)]) / max(abs(train_end), _TINY),
        level=end / unit,
        fell=-slope * (third - 1) / floor,
        fell_error=error * (third - 1) / floor,
        pace=theil_sen(judged[-max(3, count // 6) :]) / min(slope, -1e-9 * unit),
        train_shake=_jump(train) / max(abs(train_end), _FLOOR * unit),
        jumps=jump / max(first - min(low, val_low), _FLOOR * unit),
        shake=jump / floor,
        rise=(end - val_low) / floor,
        turn=(end - val_low) / max(jump, 1e-6 * unit),
        gap=(end - train_end) / floor if validated else 0.0,
        lead=_lead(train, val, unit) if val is not None else 0.0,
        rate_left=None if epochs.rate is None else float(epochs.rate[-1] / max(epochs.rate.max(), 1e-30)),
        **_accuracies(epochs),
    )


def _lead(train: Floats, val: Floats, unit: float) -> float:
    between = np.append((train[:-1] + train[1:]) / 2, train[-1])  # means within an epoch are half an epoch old
    share = (between - val) / np.maximum(np.abs(between), _LEAD_FLOOR * unit)
    return float(np.median(share[len(share) // 2 :]))


def _accuracies(epochs: Epochs) -> dict[str, float | None]:
    train, val = epochs.train_acc, epochs.val_acc
    shown, known = (train, train) if val is None else (val, val if train is None else train)
    return {
        "acc": None if shown is None else last(shown),
        "learned": None if known is None else last(known) - float(known[0]),
    }


def smooth(values: Floats, width: int) -> Floats:
    """Centred running mean of the same length; at the ends the window is cut off."""
    window = np.ones(min(width, len(values)))
    return np.asarray(np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same"))


def last(values: Floats) -> float:
    """Mean of the last fifth."""
    return float(values[-max(1, len(values) // 5) :].mean())


def theil_sen(values: Floats) -> float:
    """Median of the slopes between all pairs of points.

    Example:
        >>> theil_sen(np.array([0.0, 1.0, 2.0, 30.0, 4.0]))
        1.0
    """
    one, other = np.triu_indices(len(values), 1)
    return float(np.median((values[other] - values[one]) / (other - one))) if len(one) else 0.0


def _jump(values: Floats) -> float:
    """Typical noise of one value in the second half, by its distance from the line between its neighbours."""
    apart = np.diff(values, 2)
    half = apart[len(apart) // 2 :]
    return float(np.sqrt((half**2).mean() / 6)) if len(half) else 0.0
