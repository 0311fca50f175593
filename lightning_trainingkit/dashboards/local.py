"""The command center of some folders as a local page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render, write_page
from lightning_trainingkit.dashboards.panels import command_center
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.dashboards.read.wandb_online import read_project
from lightning_trainingkit.dashboards.secret import hide
from lightning_trainingkit.dashboards.target import check_target, default_target
from lightning_trainingkit.functional.metric_name import stage_of

__all__ = ["collect", "title", "write_center"]


def collect(
    folders: Sequence[Path], online: Sequence[str] = (), target: str | None = None, better: str | None = None
) -> dict[str, Any]:
    """Collect the data of a page: all runs below ``folders`` and in the W&B projects ``online``.

    Args:
        folders: Folders with runs.
        online: W&B projects, each as ``ENTITY/PROJECT``.
        target: Metric by which runs are compared. None takes the metric that the runs' callbacks monitor. Without
            one, it takes a validation loss, then a validation score.
        better: ``"min"`` or ``"max"``, the better end of the target. By default a run or the target's name says it.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a project can't be read, if no run has the target, or if the target's better end is unknown.
    """
    found, skipped = gather(folders)
    runs = [*(run for path in online for run in read_project(path)), *found]
    if target is None:
        target = default_target(runs)
    else:
        check_target(target, runs)
    target = hide(target)  # the page shows this name
    return page_data(runs, command_center(target, _panel_names(runs)), target, skipped, better)


def write_center(
    path: Path,
    folders: Sequence[Path],
    online: Sequence[str] = (),
    target: str | None = None,
    better: str | None = None,
) -> dict[str, Any]:
    """Write the page to ``path``, and return its data."""
    data = collect(folders, online, target, better)
    write_page(path, render(data, title(folders, online)))
    return data


def _panel_names(runs: Sequence[Record]) -> set[str]:
    """Names of metrics with curves, and of test metrics in summaries, with secrets hidden as on the page."""
    curves = {name for run in runs for name in run.curves}
    tests = {name for run in runs for name in run.summary if stage_of(name) == "test"}
    return set(map(hide, curves | tests))


def title(folders: Sequence[Path], online: Sequence[str] = ()) -> str:
    """Return the page's title: the names of its folders and W&B projects.

    Example:
        >>> title([Path("runs/grid/wandb"), Path("runs/fold")])
        'grid, fold'
    """
    parts = (folder.resolve() for folder in folders)
    return hide(", ".join([*(each.parent.name if each.name == "wandb" else each.name for each in parts), *online]))
