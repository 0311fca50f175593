"""Step 6: look at loss and accuracy curves, and name their shape."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.functional.curve_epochs import Floats
from lightning_trainingkit.functional.curve_names import choose_curves
from lightning_trainingkit.functional.curve_shape import CurveShape, curve_shapes
from lightning_trainingkit.tuning.curve_sources import find_records
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["CurveReading", "read_curves"]

Arrays = Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]]


@dataclass(frozen=True, kw_only=True)
class CurveReading(Verdict):
    """The shape of one training's curves, and what to do.

    Args:
        shape: The word for the shape that matters most, a key of ``SHAPES`` in ``functional/curve_shape.py``.
        shapes: All shapes that were seen, each with its number, message and advice.
        name: Name of the run; empty for arrays.
        curves: Steps and values of the curves that were read, by the names of their metrics.

    Example:
        >>> flat = read_curves({"train/loss": [2.3] * 10, "val/loss": [2.3] * 10})
        >>> flat.shape, [seen.shape for seen in flat.shapes]
        ('not_started', ['not_started', 'underfit'])
    """

    step: str = "curves"
    shape: str
    shapes: tuple[CurveShape, ...] = ()
    name: str = ""
    curves: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict, repr=False, compare=False)

    def save_picture(self, path: str | Path) -> None:
        """Draw the curves as dots with moving averages, the shape as title, and marks where something turned.

        Args:
            path: File of the picture. Its ending chooses the format.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from lightning_trainingkit.tuning.curve_picture import save_curves

        save_curves(self, Path(path))


@overload
def read_curves(source: Record | Arrays) -> CurveReading: ...


@overload
def read_curves(source: str | Path) -> CurveReading | list[CurveReading]: ...


def read_curves(source: Record | Arrays | str | Path) -> CurveReading | list[CurveReading]:
    """Name the shape of train and validation curves, and say what to do: step 6 of the lecture.

    Rules with thresholds that stand in ``functional/curve_rules.py`` name the shape; no model was trained for them.
    Where the curves lie too close to a threshold, the shape is ``"unclear"``. Validation should be logged at least five
    times. The rules can't see what the curves don't show: a hard task looks like a small model, dropout lifts the
    training loss as a leak would.

    Args:
        source: A ``metrics.csv``, a folder of CSVLogger, W&B or TensorBoard, a folder of such folders, a ``Record``,
            or the values (or steps and values) of each metric by its name.

    Returns:
        The reading of a run. A folder whose runs are in folders below it gives a list, the newest run last. There, a
        run without a training loss is ``"unclear"``, and its message says why.

    Raises:
        FileNotFoundError: If the file or folder does not exist.
        TypeError: If ``source`` is none of these.
        ValueError: If there is no run, no training loss, or only one value of it.

    Example:
        >>> falls = [2.3, 1.5, 1.1, 0.8, 0.6, 0.5, 0.4, 0.33, 0.27, 0.22]
        >>> reading = read_curves({"train/loss": falls, "val/loss": [loss + 0.02 for loss in falls]})
        >>> reading.shape, reading.verdict
        ('cut_too_early', 'warn')
    """
    if isinstance(source, Record):
        return _read_record(source)
    if isinstance(source, str | Path):
        records, many = find_records(Path(source))
        return [_read_or_say_why(each) for each in records] if many else _read_record(records[0])
    if isinstance(source, Mapping):
        return _read({str(name): _points(str(name), values) for name, values in source.items()})
    raise TypeError(
        f"`source` must be a file, a folder, a Record or a mapping, got {type(source).__name__}. "
        "Pass the folder of a logger, say."
    )


def _read_record(record: Record) -> CurveReading:
    return _read({name: curve.points for name, curve in record.curves.items()}, record.name or record.id)


def _read_or_say_why(record: Record) -> CurveReading:
    try:
        return _read_record(record)
    except ValueError as error:
        return CurveReading(verdict="warn", message=str(error), shape="unclear", name=record.name or record.id)


def _read(curves: dict[str, tuple[Floats, Floats]], name: str = "") -> CurveReading:
    chosen = choose_curves({metric: len(steps) for metric, (steps, _) in curves.items()})
    metric = chosen.get("train_loss")
    if metric is None:
        have = ", ".join(sorted(curves)[:20]) or "no metrics"
        raise ValueError(
            f"The curves must have a training loss, got {have}. Log it by self.log('train/loss', loss), often enough "
            "for short epochs (log_every_n_steps), or name it so."
        )
    if len(curves[metric][0]) < 2:
        raise ValueError(
            f"The curves must have at least two values of {metric}, got {len(curves[metric][0])}. "
            "Log it more often (log_every_n_steps), or train for more epochs."
        )
    used = {role: curves[metric] for role, metric in chosen.items()}
    shapes = curve_shapes(used)
    first = shapes[0]
    notes = (
        () if "val_loss" in used else ("No validation loss was found: nothing is said about overfitting and leaks.",)
    )
    return CurveReading(
        verdict=first.verdict,
        message=first.message,
        advice=first.advice,
        value=first.value,
        notes=notes,
        shape=first.shape,
        shapes=shapes,
        name=name,
        curves={metric: curves[metric] for metric in chosen.values()},
    )


def _points(name: str, given: ArrayLike | tuple[ArrayLike, ArrayLike]) -> tuple[Floats, Floats]:
    """Steps and values as arrays; without steps, the values are counted from 1."""
    pair = given if isinstance(given, tuple) and len(given) == 2 and not np.isscalar(given[0]) else None
    try:
        values = np.asarray(given if pair is None else pair[1], dtype=np.float64)
        steps = np.arange(1.0, values.size + 1) if pair is None else np.asarray(pair[0], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`source[{name!r}]` must be numbers, got {error}. Pass values, or (steps, values).") from error
    if values.ndim != 1 or steps.shape != values.shape:
        raise ValueError(
            f"`source[{name!r}]` must be values, or steps and as many values, got shapes {steps.shape} and "
            f"{values.shape}. Pass one curve for each name."
        )
    return steps, values
