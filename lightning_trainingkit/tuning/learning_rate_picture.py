"""The picture of step 3: the range test, and the drop of the loss against the learning rate."""

import os
from typing import Any

from lightning_trainingkit.functional.learning_rate_choice import drop_of_sweep, moving_average
from lightning_trainingkit.tuning.rate_verdict import LearningRate

__all__ = ["save_picture"]


def save_picture(found: LearningRate, path: str | os.PathLike[str]) -> None:
    """Draw the range test above, and the trials with their intervals and the choice below.

    Args:
        found: What ``find_learning_rate`` found.
        path: The file. Its ending chooses the format, such as ``.png``.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`save_picture` needs matplotlib. Install it with `pip install lightning-trainingkit[tuning]`."
        ) from error
    figure = Figure(figsize=(7, 6), layout="constrained")
    sweep, drops = figure.subplots(2, 1, sharex=True)
    _draw_sweep(sweep, found)
    _draw_drops(drops, found)
    if found.rate is not None:
        for axes in (sweep, drops):
            axes.axvline(found.rate, color="C2", zorder=0)
        drops.axvline(2 * found.rate, color="C2", linestyle=":", zorder=0, label="twice the chosen rate")
        drops.lines[-2].set_label(f"chosen: {found.rate:.3g}")
    drops.legend()
    figure.savefig(path)


def _draw_sweep(axes: Any, found: LearningRate) -> None:
    rates, losses = [each for each, _ in found.curve], [each for _, each in found.curve]
    start = found.trials[0].start
    lowest = start - max(0.0, drop_of_sweep(found.curve, start))
    axes.scatter(rates, losses, s=8, color="0.6")
    axes.plot(rates, moving_average(losses), color="C0")
    axes.set(xscale="log", ylabel="loss", title="Range test: the rate grows in each iteration")
    reach = max(start - lowest, 0.1 * abs(start))
    axes.set_ylim(lowest - 0.3 * reach, start + 0.5 * reach)


def _draw_drops(axes: Any, found: LearningRate) -> None:
    kinds = {
        "whole trial": ([each for each in found.trials if each.whole], "o", "C0"),
        "stopped early": ([each for each in found.trials if each.finite and not each.whole], "v", "0.6"),
    }
    for label, (trials, marker, color) in kinds.items():
        if trials:
            axes.errorbar(
                [each.rate for each in trials],
                [max(each.drop, _floor(found)) for each in trials],
                [each.margin for each in trials],
                fmt=marker,
                color=color,
                capsize=3,
                label=label,
            )
    broken = [each.rate for each in found.trials if not each.finite]
    if broken:
        axes.scatter(broken, [_floor(found)] * len(broken), marker="x", color="C3", label="the loss was not finite")
    axes.axhline(0, color="0.8", zorder=0)
    axes.set(xscale="log", xlabel="learning rate", ylabel="drop of the loss", title="Trials: each at one rate")


def _floor(found: LearningRate) -> float:
    """Where a loss is drawn that rose far or was not finite."""
    drops = [each.drop for each in found.trials if each.finite]
    return -0.25 * max([*drops, 0.01])
