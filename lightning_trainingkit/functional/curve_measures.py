"""The numbers about train and validation curves from which their shape is named."""

from dataclasses import dataclass

import numpy as np

from lightning_trainingkit.functional.curve_epochs import Epochs, Floats

__all__ = ["CurveMeasures", "measure", "smooth"]

_FLOOR = 0.05
"""Differences are shares of the present loss, or of this share of the first loss if the present loss is smaller."""


@dataclass(frozen=True)
class CurveMeasures:
    """Numbers about one training. All but ``acc_gap`` are free of the units of the loss.

    Args:
        epochs: Number of epochs.
        start: Loss before training, as far as it was logged.
        broken: Step of the first loss that is not finite, or None.
        peak: Highest training loss, relative to ``start``.
        end: Training loss at the end, relative to ``start``.
        best: Lowest training loss, relative to ``start``.
        waited: Share of the training before the training loss had fallen by a tenth of its whole fall.
        fell: Share of the judged loss that the last third of the training took away.
        fell_error: Standard error of ``fell``.
        jumps: Typical jump of the judged loss between epochs, as a share of all that it gained.
        shake: Typical jump at the end, as a share of the loss at the end.
        train_shake: The same of the training loss.
        rise: Loss on validation at the end above its best, as a share of the loss at the end.
        gap: Loss on validation minus loss on training at the end, as a share of the first.
        level: Loss on validation at the end, relative to ``start``.
        lead: Typical loss on training minus loss on validation, as a share of the first, in the second half.
        acc_gap: Accuracy on training minus accuracy on validation at the end.
        rate_left: Learning rate at the end, as a share of the highest; None if it was not logged.
    """

    epochs: int
    start: float
    broken: float | None
    peak: float = 0.0
    end: float = 0.0
    best: float = 0.0
    waited: float = 0.0
    fell: float = 0.0
    fell_error: float = 0.0
    jumps: float = 0.0
    shake: float = 0.0
    train_shake: float = 0.0
    rise: float = 0.0
    gap: float = 0.0
    level: float = 0.0
    lead: float = 0.0
    acc_gap: float | None = None
    acc_end: float | None = None
    first_val_acc: float | None = None
    rate_left: float | None = None


def measure(epochs: Epochs) -> CurveMeasures:
    """Measure curves on their common grid."""
    train, val = epochs.train_loss, epochs.val_loss
    if not len(train):
        return CurveMeasures(0, np.nan, epochs.broken)
    judged = train if val is None else val
    start = max(epochs.first_loss, train[0])
    count = len(train)
    third = max(2, count // 3)
    calm = smooth(train, 3)
    low = float(calm.min())
    fallen = np.flatnonzero(train < start - 0.1 * (start - low))
    end, train_end = last(judged), last(train)
    floor = max(abs(end), _FLOOR * abs(start))
    apart = _apart(judged)
    half = apart[len(apart) // 2 :]
    gained = max(max(start, judged[0]) - min(float(smooth(judged, 3).min()), end), _FLOOR * abs(start))
    slope, error = theil_sen(judged[-third:])
    found = {}
    if val is not None:
        between = np.append((train[:-1] + train[1:]) / 2, train[-1])  # training losses are half an epoch old
        share = (between - val) / np.maximum(np.abs(between), _FLOOR * abs(start))
        found = {
            "rise": (end - float(smooth(val, 3).min())) / floor,
            "gap": (end - train_end) / floor,
            "lead": float(np.median(share[count // 2 :])),
        }
    if epochs.train_acc is not None and epochs.val_acc is not None:
        found["acc_gap"] = last(epochs.train_acc) - last(epochs.val_acc)
    if epochs.val_acc is not None:
        found["acc_end"] = last(epochs.val_acc)
        found["first_val_acc"] = float(epochs.val_acc[0])
    return CurveMeasures(
        epochs=count,
        start=start,
        broken=epochs.broken,
        peak=float(train.max()) / abs(start),
        end=train_end / abs(start),
        best=low / abs(start),
        waited=(float(fallen[0]) if len(fallen) else count) / count,
        fell=-slope * third / floor,
        fell_error=error * third / floor,
        jumps=_size(half) / gained,
        shake=_size(_apart(judged[-max(5, third) :])) / floor,
        train_shake=_size(_apart(train[-max(5, third) :])) / max(abs(train_end), _FLOOR * abs(start)),
        level=end / abs(start),
        rate_left=None if epochs.rate is None else float(epochs.rate[-1] / epochs.rate.max()),
        **found,
    )


def smooth(values: Floats, width: int) -> Floats:
    """Centred running mean. At the ends the window is cut off, so that the length stays."""
    width = min(width, len(values))
    return np.asarray(np.convolve(values, np.ones(width), "same") / np.convolve(np.ones(len(values)), np.ones(width), "same"))


def last(values: Floats) -> float:
    """Mean of the last fifth."""
    return float(values[-max(1, len(values) // 5) :].mean())


def theil_sen(values: Floats) -> tuple[float, float]:
    """Median of all slopes between two points, and its standard error from the scatter around the line.

    Example:
        >>> slope, error = theil_sen(np.array([0.0, 1.0, 2.0, 30.0, 4.0]))
        >>> slope, error > 0
        (1.0, True)
    """
    places = np.arange(len(values))
    one, other = np.triu_indices(len(values), 1)
    slope = float(np.median((values[other] - values[one]) / (other - one)))
    rest = values - slope * places
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    return slope, spread / np.sqrt(((places - places.mean()) ** 2).sum())


def _apart(values: Floats) -> Floats:
    """How far each value lies from the line between its neighbours, scaled to the noise of one value."""
    return np.diff(values, 2) / np.sqrt(6)


def _size(values: Floats) -> float:
    return float(np.sqrt((values**2).mean())) if len(values) else 0.0
