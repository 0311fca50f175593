"""The picture of step 3: the range test, and the drop of the loss against the learning rate."""

import os
from typing import Any

from lightning_trainingkit.functional.learning_rate_choice import largest_stable
from lightning_trainingkit.functional.range_test import drop_of_sweep, moving_average
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
        drops.lines[-1].set_label(f"chosen: {found.rate:.3g}")
        stable = largest_stable(found.trials)
        drops.axvline(stable, color="C1", linestyle=":", zorder=0, label=f"largest stable rate: {stable:.3g}")
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
    lowest = -0.25 * max([0.1 * abs(found.trials[0].start), *(each.drop for each in found.trials)])
    shown = [each for each in found.trials if each.drop > lowest]
    lost = [each.rate for each in found.trials if each not in shown]
    for label, marker, color, whole in (("whole trial", "o", "C0", True), ("stopped early", "v", "0.6", False)):
        trials = [each for each in shown if each.whole is whole]
        rates, drops, margins = ([getattr(each, name) for each in trials] for name in ("rate", "drop", "margin"))
        if trials:
            axes.errorbar(rates, drops, margins, fmt=marker, color=color, capsize=3, label=label)
    if lost:
        axes.scatter(lost, [lowest] * len(lost), marker="x", color="C3", label="the loss rose, or was not finite")
    axes.axhline(0, color="0.8", zorder=0)
    axes.set(xscale="log", xlabel="learning rate", ylabel="drop of the loss", title="Trials: each at one rate")
