"""Name the shape of train and validation curves, in the lecture's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from lightning_trainingkit.functional.curve_epochs import FEWEST_EPOCHS, by_epoch
from lightning_trainingkit.functional.curve_measures import measure
from lightning_trainingkit.functional.curve_rules import EARLY, RULES

__all__ = ["SHAPES", "CurveShape", "curve_shapes"]

SHAPES = {
    "diverged": "The learning rate is too high, or the initialization is bad: take a tenth of the rate, or clip "
    "gradients (gradient_clip_val=1.0).",
    "not_started": "Bad initialization is a prime suspect, or the learning rate is too low. Run check_initial_loss and "
    "overfit_small_sample.",
    "noisy": "Look at a moving average before you trust single epochs. Take more validation examples, larger batches "
    "or a lower learning rate.",
    "leaked": "Look for validation examples in the training set, and for inputs that tell the label. An easy task with "
    "dropout or augmentation may look the same.",
    "overfit": "Regularize (weight decay, dropout, augmentation), get more data, or stop early "
    "(lightning_trainingkit.EarlyStopping keeps the best weights).",
    "cut_too_early": "Train longer: raise max_epochs.",
    "plateau": "Decay the learning rate now, to a tenth: torch.optim.lr_scheduler.ReduceLROnPlateau, say.",
    "underfit": "Use a bigger model, train longer, or regularize less.",
    "healthy": "",
    "unclear": "Look at the picture. More epochs, or validation more often, would tell more.",
}
"""The shapes, and what to do about each; nothing about a healthy one."""


@dataclass(frozen=True)
class CurveShape:
    """A shape that was seen in curves.

    Args:
        shape: A key of ``SHAPES``.
        value: The number that it rests on. The message says its unit.
        message: What was seen, with the number.
        advice: What to do.

    Example:
        >>> seen = CurveShape("underfit", 0.7, "Both losses stopped at 70% of the first.", "Use a bigger model.")
        >>> seen.value
        0.7
    """

    shape: str
    value: float | None
    message: str
    advice: str

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """``"fail"`` where the training must be done again, ``"warn"`` where it could end better."""
        if self.shape in ("diverged", "not_started"):
            return "fail"
        return "pass" if self.shape == "healthy" else "warn"


def curve_shapes(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> tuple[CurveShape, ...]:
    """Name the shapes of one training's curves, the one that matters most first.

    The thresholds stand in ``functional/curve_rules.py``. Without a rule that holds, and of losses below zero, the
    shape is ``"unclear"``. A training is healthy only if no other rule holds.

    Args:
        curves: Steps and values of ``train_loss`` and, as far as logged, of ``val_loss``, ``train_acc``, ``val_acc``
            and ``rate``, the learning rate. Losses of steps and means of epochs both do.

    Returns:
        At least one shape.

    Example:
        >>> steps = range(10, 101, 10)
        >>> train = [1.0, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03]
        >>> val = [1.0, 0.7, 0.6, 0.58, 0.6, 0.65, 0.7, 0.76, 0.82, 0.9]
        >>> [seen.shape for seen in curve_shapes({"train_loss": (steps, train), "val_loss": (steps, val)})]
        ['overfit']
    """
    measures = measure(by_epoch(curves))
    able = RULES if measures.epochs >= FEWEST_EPOCHS else EARLY
    found = {shape: seen for shape in able if (seen := RULES[shape](measures)) is not None}
    if measures.negative and measures.broken is None:
        return (_unclear("A loss is below zero, so that no share of it can be judged."),)
    if len(found) > 1:
        found.pop("healthy", None)
    if not found:
        few = f"{measures.epochs} epochs are too few to name a shape."
        close = "The curves lie between two shapes, too close to the thresholds to name one."
        return (_unclear(few if measures.epochs < FEWEST_EPOCHS else close),)
    return tuple(CurveShape(shape, *seen, SHAPES[shape]) for shape, seen in found.items())


def _unclear(message: str) -> CurveShape:
    return CurveShape("unclear", None, message, SHAPES["unclear"])
