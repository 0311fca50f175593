"""The progress of a search: a live table on a terminal, and otherwise a line for each finished trial."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lightning_trainingkit.tuning.trials.result import Result, counted
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_slot import TrialSlot
from lightning_trainingkit.tuning.trials.wording import label

__all__ = ["TrialTable"]


class TrialTable:
    """Shows the best trial so far, the running ones and the time left.

    Args:
        study: The study.
        monitor: Name of the metric.
        max_epochs: Epochs of a trial.
        console: Where to write.
    """

    def __init__(self, study: Study, monitor: str, max_epochs: int, console: Console | None = None) -> None:
        self._study = study
        self._monitor = monitor
        self._max_epochs = max_epochs
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown: set[int] = set()
        self._began = False

    def __enter__(self) -> "TrialTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, running: Sequence[TrialSlot], results: Sequence[Result], counts: dict[str, int]) -> None:
        """Show the present state."""
        if not self._began:  # earlier results are not shown again
            self._began = True
            self._shown = {each.ticket for each in results}
        if self._live is not None:
            self._live.update(self._table(running, results, counts), refresh=True)
            return
        for result in results:
            if result.ticket not in self._shown:
                self._shown.add(result.ticket)
                self._console.print(self._line(result, len(self._shown), counts["total"]), soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """Write a line."""
        self._console.print(text, soft_wrap=True, markup=False)

    def _line(self, result: Result, done: int, total: int) -> str:
        value = "" if result.value is None else f" {self._monitor} {result.value:.4g}"
        why = result.error.strip().splitlines()[-1] if result.error.strip() else ""
        said = f"[{done}/{total}] trial {result.ticket} {result.word}{value} ({label(result.params)})"
        return f"{said}: {why}" if why else said

    def _table(self, running: Sequence[TrialSlot], results: Sequence[Result], counts: dict[str, int]) -> Table:
        best = next(iter(self._study.rank(results)), None)
        table = Table(title=self._title(results, counts), title_justify="left", expand=False)
        for name in ("trial", "state", self._monitor, "epoch", "hyperparameters"):
            table.add_column(name, no_wrap=name != "hyperparameters")
        if best is not None:
            epoch = str(best.outcome.get("best_epoch", ""))
            table.add_row(str(best.ticket), "best", _number(best.value), epoch, label(best.params), style="bold")
        for slot in running:
            again = f" (try {slot.attempt.number + 1})" if slot.attempt.number else ""
            table.add_row(
                str(slot.attempt.ticket),
                f"running{again}",
                _number(slot.value),
                f"{slot.epoch}/{self._max_epochs}",
                label(slot.attempt.params),
            )
        return table

    def _title(self, results: Sequence[Result], counts: dict[str, int]) -> str:
        parts = [f"{self._study.name}: {len(results)} of {counts['total']} trials"]
        parts += counted(results)
        seconds = [each.outcome["seconds"] for each in results if "seconds" in each.outcome]
        remaining = counts["total"] - len(results)
        if seconds and remaining and counts["running"]:  # of all workers
            parts.append(f"about {_time(sum(seconds) / len(seconds) * remaining / counts['running'])} left")
        return ", ".join(parts)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
