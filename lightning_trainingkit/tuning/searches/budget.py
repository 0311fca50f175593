"""The budget of a loop of searches: trials, epochs or hours."""

import time
from collections.abc import Callable

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.result import result_of, trained_epochs
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.tickets import Ticket

__all__ = ["Budget"]


class Budget:
    """Counts what searches have used.

    Args:
        trials: Trials of all searches and workers. None sets no limit.
        epochs: Epochs of all searches and workers, those of steps 1 to 3 too.
        hours: Hours of this call.

    Attributes:
        used_trials: Trials of the finished searches.
        used_epochs: Epochs of the finished searches.

    Raises:
        TypeError: If a limit is no number.
        ValueError: If a limit is not positive.
    """

    def __init__(self, trials: int | None, epochs: float | None, hours: float | None) -> None:
        hint = "Leave it out for no limit."
        self.trials = None if trials is None else _check.integer("max_trials", trials, hint, least=1)
        self.epochs = None if epochs is None else _check.number("max_epochs", epochs, hint, above=0)
        limit = None if hours is None else _check.number("max_hours", hours, hint, above=0)
        self._end = None if limit is None else time.monotonic() + 3600 * limit
        self.used_trials, self.used_epochs = 0, 0.0

    def left_trials(self, wanted: int) -> int:
        """How many of the wanted trials the budget allows."""
        return wanted if self.trials is None else max(0, min(wanted, self.trials - self.used_trials))

    def spent(self, epochs: int = 1) -> str:
        """Why no trial of so many epochs may start, in words. Empty if one may."""
        if self.trials is not None and self.used_trials >= self.trials:
            return f"The budget of {self.trials} trials is used."
        if self.epochs is not None and self.used_epochs + epochs > self.epochs:
            return f"The budget of {self.epochs:g} epochs is used: {self.used_epochs:.0f} were trained."
        if self._end is not None and time.monotonic() >= self._end:
            return "The budget of hours is used."
        return ""

    def too_few(self, trials: int) -> str:
        """Why no round is searched that could only repeat configurations."""
        return f"The budget of {self.trials} trials is used but for {trials}, too few for a round."

    def stop(self, epochs: int) -> Callable[[Study], bool | None]:
        """Whether a search must start no further trial of so many epochs, as ``run_trials`` asks it.

        A running trial counts with all of its epochs. It may be pruned, so the answer is None until it has ended: all
        workers leave a search with the same results.
        """

        def stop(study: Study) -> bool | None:
            if self._end is not None and time.monotonic() >= self._end:
                return True
            if self.epochs is None:
                return False
            tickets = study.tickets().values()
            if self.used_epochs + sum(_epochs(each, epochs) for each in tickets) + epochs <= self.epochs:
                return False
            return None if any(each.state == "running" for each in tickets) else True

        return stop


def _epochs(ticket: Ticket, planned: int) -> int:
    return planned if ticket.state == "running" else trained_epochs(result_of(ticket))
