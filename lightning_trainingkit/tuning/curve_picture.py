"""Draw the curves of a training as the lecture does: dots, a moving average, and the shape's name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_trainingkit.functional.curve_epochs import Floats
from lightning_trainingkit.functional.curve_measures import smooth
from lightning_trainingkit.functional.metric_name import named_mode, stage_of

if TYPE_CHECKING:
    from lightning_trainingkit.tuning.curves import CurveReading

__all__ = ["draw_curves", "save_curves"]

_COLOURS = {"train": "tab:blue", "val": "tab:orange"}
_WINDOWS = 30  # of the moving average in one training


def save_curves(reading: "CurveReading", path: Path) -> None:
    """Draw losses and, if there are any, accuracies, and write the picture.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[tuning]'.") from error
    scores = any(named_mode(name) == "max" for name in reading.curves)
    figure = Figure(figsize=(10.5 if scores else 5.5, 4), layout="constrained")
    panels = figure.subplots(1, 1 + scores, squeeze=False)[0]
    draw_curves(panels[0], reading, "min")
    if scores:
        draw_curves(panels[1], reading, "max")
    figure.suptitle(f"{reading.name}: {reading.shape}" if reading.name else reading.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def draw_curves(axes: Any, reading: "CurveReading", mode: str) -> None:
    """Draw the losses (``"min"``) or the accuracies (``"max"``) of a reading into matplotlib's axes."""
    for name, (steps, values) in reading.curves.items():
        if named_mode(name) != mode:
            continue
        stage = stage_of(name) or "train"
        finite = np.isfinite(values)
        colour, at, shown = _COLOURS[stage], steps[finite], values[finite]
        axes.plot(at, shown, ".", color=colour, alpha=0.35, markersize=3 if len(at) > 100 else 6, markeredgewidth=0)
        axes.plot(at, smooth(shown, max(1, len(shown) // _WINDOWS)), color=colour, label=name)
        if stage == "val" and len(shown):
            best = int(shown.argmin() if mode == "min" else shown.argmax())
            axes.plot(at[best], shown[best], "o", color="black", markersize=5, label=f"best {name}: {shown[best]:.3g}")
        if not finite.all():
            axes.axvline(steps[~finite][0], color="tab:red", linestyle=":", label="first value that is not finite")
    if mode == "min":
        axes.set_ylim(*_limits(reading))
    axes.set(xlabel="step", ylabel="loss" if mode == "min" else "accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def _limits(reading: "CurveReading") -> tuple[float, float]:
    """Limits of the loss that show the curves, also where single values are far away."""
    losses: list[Floats] = [values for name, (_, values) in reading.curves.items() if named_mode(name) == "min"]
    finite = [values[np.isfinite(values)] for values in losses if np.isfinite(values).any()]
    low = min((float(values.min()) for values in finite), default=0.0)
    high = max((float(np.percentile(values, 97)) for values in finite), default=1.0)
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room
