"""The picture of a search: the values in the order of the trials, and an isolation plot for each hyperparameter."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_trainingkit.tuning.searches.isolation import isolate
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.trials.domains import Choices, Range
from lightning_trainingkit.tuning.trials.result import Result

__all__ = ["save_picture"]

_COLUMNS = 3


def save_picture(searches: Sequence[SearchResult], path: str | os.PathLike[str]) -> None:
    """Draw searches of one module, the coarse one first.

    Args:
        searches: The searches, at least one. Each has a colour.
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
    names = list(dict.fromkeys(name for search in searches for name in search.space))
    columns = min(_COLUMNS, len(names) + 1)
    lines = math.ceil((len(names) + 1) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    _draw_history(panels[0], searches)
    for axes, name in zip(panels[1:], names, strict=False):
        _draw_isolation(axes, name, searches)
    for axes in panels[len(names) + 1 :]:
        axes.set_visible(False)
    figure.savefig(path)


def _draw_history(axes: Any, searches: Sequence[SearchResult]) -> None:
    begin, values = 0, list[float]()
    for number, search in enumerate(searches):
        done = _done(search)
        if not done:
            continue
        places = [begin + each.ticket for each in done]
        found = [float(each.value or 0.0) for each in done]
        run = (np.minimum if search.mode == "min" else np.maximum).accumulate(found)
        axes.scatter(places, found, s=12, color=f"C{number}", label=search.name)
        axes.step(places, run, where="post", color=f"C{number}")
        begin += 1 + max(each.ticket for each in search.trials)
        values += found
    axes.set(xlabel="trial", ylabel=searches[0].monitor, title="Trials, and the best so far")
    _limit(axes, values, searches[0].mode)
    if len(searches) > 1 and values:
        axes.legend(fontsize="small")


def _draw_isolation(axes: Any, name: str, searches: Sequence[SearchResult]) -> None:
    values: list[float] = []
    ends: list[float] = []
    choices = False
    for number, search in enumerate(searches):
        domain, done = search.space.get(name), _done(search)
        if domain is None or not done:
            continue
        choices = isinstance(domain, Choices)
        if isinstance(domain, Choices):  # in their order, also those without a trial
            axes.plot(list(map(str, domain.values)), [math.nan] * len(domain.values))
        where = [str(each.params[name]) if choices else each.params[name] for each in done]
        found = [float(each.value or 0.0) for each in done]
        axes.scatter(where, found, s=12, color=f"C{number}", alpha=0.7)
        values += found
        for part in isolate(search.space, done, search.mode)[name]:
            if part.best is not None and not choices:
                axes.plot([part.low, part.high], [part.best, part.best], color=f"C{number}")
        ends += [domain.low, domain.high] if isinstance(domain, Range) and domain.log else []
    if ends:
        axes.set_xscale("log")
        _label_log_axis(axes.xaxis, max(ends) / min(ends))  # of all rounds: the last one may be the narrowest
    axes.set(xlabel=name, ylabel=searches[0].monitor, title=f"{name}: the best in each part")
    _limit(axes, values, searches[0].mode)


def _label_log_axis(axis: Any, span: float) -> None:
    """Few labels: matplotlib's own run into each other where the range is short."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if span < 10 else (1, 3) if span < 1000 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _done(search: SearchResult) -> list[Result]:
    return sorted(search.ranked, key=lambda each: each.ticket)


def _limit(axes: Any, values: Sequence[float], mode: str) -> None:
    """Show the good values at full height: one bad trial would squeeze them."""
    if len(values) < 4:
        return
    best, middle, worst = (
        float(np.quantile(values, share if mode == "min" else 1 - share)) for share in (0.0, 0.5, 1.0)
    )
    reach = 3 * abs(middle - best)
    if not 0 < reach < abs(worst - best):
        return
    end = best + (reach if mode == "min" else -reach)
    margin = 0.05 * reach
    axes.set_ylim(*((best - margin, end) if mode == "min" else (end, best + margin)))
