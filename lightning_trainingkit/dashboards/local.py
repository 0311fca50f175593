"""The command center of some folders as a local page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render, write_page
from lightning_trainingkit.dashboards.panels import command_center
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.read.wandb_online import read_project
from lightning_trainingkit.dashboards.secret import hide

__all__ = ["collect", "title", "write_center"]


def collect(
    folders: Sequence[Path], online: Sequence[str] = (), target: str = "val/loss", better: str | None = None
) -> dict[str, Any]:
    """What a page of all runs below ``folders``, and of W&B's projects ``online``, shows.

    Args:
        folders: Where the runs are.
        online: ``ENTITY/PROJECT`` each.
        target: The metric that runs are compared by.
        better: Which end of it is the better one, ``"min"`` or ``"max"``, where neither a run nor its name says.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a project can't be read, or if nothing says which end of the target is the better one.
    """
    runs, skipped = gather(folders)
    target = hide(target)  # as the page names it
    return page_data(
        [*(run for path in online for run in read_project(path)), *runs],
        command_center(target),
        target,
        skipped,
        better,
    )


def write_center(
    path: Path,
    folders: Sequence[Path],
    online: Sequence[str] = (),
    target: str = "val/loss",
    better: str | None = None,
) -> dict[str, Any]:
    """Write the page to ``path``, and return what it shows."""
    data = collect(folders, online, target, better)
    write_page(path, render(data, title(folders, online)))
    return data


def title(folders: Sequence[Path], online: Sequence[str] = ()) -> str:
    """What stands above the page: the names of what it shows.

    Example:
        >>> title([Path("runs/grid/wandb"), Path("runs/fold")])
        'grid, fold'
    """
    parts = (folder.resolve() for folder in folders)
    return hide(", ".join([*(each.parent.name if each.name == "wandb" else each.name for each in parts), *online]))
