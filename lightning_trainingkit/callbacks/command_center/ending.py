"""End a run, at the latest when the process ends, and write its page."""

import atexit
import os
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_trainingkit._lightning import rank_zero_warn
from lightning_trainingkit.dashboards.heartbeat import Heartbeat
from lightning_trainingkit.dashboards.printable import printable

if TYPE_CHECKING:
    from wandb import Run

__all__ = ["OpenRun"]

_LEFT_OPEN: dict["OpenRun", None] = {}  # in the order in which their fits ended


class OpenRun:
    """A run between its opening and its end, with a heartbeat beside its file.

    Args:
        run: W&B's run.
        page: Where to write the page of all runs that W&B keeps beside this one. None writes none.
    """

    def __init__(self, run: "Run", page: str | None) -> None:
        self.run = run
        self.folder = Path(run.dir).parent.absolute()
        self._page = None if page is None or run.disabled else Path(page).absolute()
        self._heartbeat = None if run.disabled else Heartbeat(self.folder)
        self._process = os.getpid()

    def leave_open(self) -> None:
        """Keep the run open for more metrics, and end it as finished when the process ends in any way.

        W&B would end it with the exit code of the process, which an error after the fit may set.
        """
        if self._heartbeat is not None:
            self._heartbeat.end_fit()
        if self in _LEFT_OPEN:
            return
        _LEFT_OPEN[self] = None
        if parent_process() is None:
            # Again for each run: W&B registers its own end when its service starts, and ours must run before it.
            atexit.unregister(_end_all)
            atexit.register(_end_all)
        else:
            # A forked process of `multiprocessing` (`strategy="ddp_fork"`) ends without `atexit`.
            Finalize(None, _end_all, exitpriority=1)

    def end(self, exit_code: int) -> None:
        """End the run, then write the page, even if W&B fails."""
        try:
            self._finish(exit_code)
        finally:
            self.write_page()

    def write_page(self) -> None:
        """Write the page. A failure is a warning."""
        if self._page is None:
            return
        from lightning_trainingkit.dashboards.local import write_center

        try:
            write_center(self._page, [self.folder.parent])
        except Exception as error:
            rank_zero_warn(printable(f"The page {self._page} was not written: {error}"))

    def _finish(self, exit_code: int) -> None:
        from lightning_trainingkit.dashboards.read.wandb_end import wait_for_end

        _LEFT_OPEN.pop(self, None)
        try:
            self.run.finish(exit_code=exit_code)
            if self._page is not None:
                wait_for_end(self.folder / f"run-{self.run.id}.wandb")
        finally:
            if self._heartbeat is not None:
                self._heartbeat.stop()


def _end_all() -> None:
    """End all runs, then write each page once, since a page shows the runs of several fits."""
    # A process that the user forked has the runs of its parent in its memory.
    ended = [each for each in _LEFT_OPEN if each._process == os.getpid()]
    for each in ended:
        try:
            each._finish(0)
        except Exception as error:
            rank_zero_warn(printable(f"W&B did not end the run {each.run.id}: {error}"))
    for each in {(each._page, each.folder.parent): each for each in ended}.values():
        each.write_page()
