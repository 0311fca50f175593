"""Published rules of two other tools, written anew from their documentation, on the same curves.

- **SageMaker Debugger**: ``LossNotDecreasing``, ``Overfit``, ``Overtraining`` and ``ExplodingTensor``, with the
  defaults of its documentation. ``Overfit`` has the patience of one value, as documented.
- **TheDeepChecker** (Ben Braiek and Khomh, TOSEM 2023): the checks of the loss curve (numerical instability, diverging,
  fluctuating, slow or not decreasing) with the defaults of its configuration. It reads no validation curve.

Neither tool names a shape. The first of their findings, the gravest first, is translated into our word. Without a
finding the training is healthy.
"""

from collections.abc import Callable

import numpy as np

from .logged import Logged

__all__ = ["PEERS"]


def sagemaker(curves: Logged) -> str:
    """The first finding of SageMaker Debugger's rules."""
    train, val = curves["train_loss"][1], curves["val_loss"][1]
    if not (np.isfinite(train).all() and np.isfinite(val).all()):
        return "diverged"  # ExplodingTensor
    at_val = _means(curves)
    if _not_decreasing(train):
        return "not_started"  # LossNotDecreasing
    if (((val - at_val) / np.maximum(at_val, 1e-12)) > 0.1)[-1]:
        return "overfit"  # Overfit: ratio_threshold 0.1, patience 1
    return "overfit" if _overtrained(at_val, val) else "healthy"


def _not_decreasing(losses: np.ndarray, num_steps: int = 10, diff_percent: float = 0.1) -> bool:
    """Whether the loss ever failed to fall by 0.1 % within 10 logged values, of more than half of all checks.

    The documented rule fires at the first such check. On any noisy curve that is at once, so that half is kinder.
    """
    before, now = losses[:-num_steps:num_steps], losses[num_steps::num_steps]
    if not len(now):
        before, now = losses[:1], losses[-1:]
    size = min(len(before), len(now))
    return bool(np.mean((before[:size] - now[:size]) < diff_percent / 100 * np.abs(before[:size])) > 0.5)


def _overtrained(train: np.ndarray, val: np.ndarray, delta: float = 0.01) -> bool:
    """Overtraining: neither loss has improved by 0.01 for 5 (training) and 10 (validation) values."""
    return (
        all(
            _since_best(losses, delta) > patience
            for losses, patience in ((train, 5), (val, 10))
            if len(losses) > patience
        )
        and len(val) > 10
    )


def _since_best(losses: np.ndarray, delta: float) -> int:
    best, place = losses[0], 0
    for number, loss in enumerate(losses):
        if loss < best - delta:
            best, place = loss, number
    return len(losses) - 1 - place


def deepchecker(curves: Logged) -> str:
    """The first finding of TheDeepChecker's checks of the training loss, as means of epochs."""
    if not np.isfinite(curves["train_loss"][1]).all():
        return "diverged"
    losses = _means(curves)
    rates = losses[1:] / np.minimum.accumulate(losses)[:-1]
    if (losses[-4:] / np.maximum(losses[-5:-1], 1e-12) >= 2).all() or rates[-1] >= 2:
        return "diverged"  # incr_abs_rate_max_thresh 2
    turns = np.count_nonzero(np.diff(losses[1:] > losses[:-1]))
    if (len(losses) - turns) / len(losses) < 0.5:
        return "noisy"  # smoothness_ratio_min_thresh 0.5
    falls = (losses[-5:-1] - losses[-4:]) / np.maximum(losses[-5:-1], 1e-12)
    if len(losses) >= 5 and (falls < 0.05).all():  # window_size 5, decr_percentage 0.05
        return "not_started" if losses[-1] > 0.5 * losses[0] else "plateau"
    return "healthy"


def _means(curves: Logged) -> np.ndarray:
    """Mean training losses of the epochs."""
    (steps, losses), (ends, _) = curves["train_loss"], curves["val_loss"]
    epoch = np.searchsorted(ends, steps)
    return np.bincount(epoch, weights=losses) / np.bincount(epoch)


PEERS: dict[str, Callable[[Logged], str]] = {"SageMaker Debugger": sagemaker, "TheDeepChecker": deepchecker}
"""A word for the curves of a training, by tool."""
