"""What a list of Optuna trials says about each ticket. Every worker computes the same answer from the same list.

A **ticket** is one trial that the study owes. An **attempt** is one try of a ticket, an Optuna trial whose user
attributes name its ticket and its number. Two workers may create the same attempt at once: of all trials with the same
ticket and attempt, the one with the lowest number is real, and all others are **surplus**.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["ATTEMPT", "DEATHS", "DIED", "ERROR", "HEARTBEAT", "INTERRUPTED", "OUTCOME", "SURPLUS", "TICKET"]
__all__ += ["Ticket", "read_tickets", "surplus_of"]

# User attributes of a trial.
TICKET, ATTEMPT = "ticket", "attempt"
DEATHS = "deaths"  # how many attempts before this one died
HEARTBEAT = "heartbeat"  # the worker and its counter
DIED, INTERRUPTED, ERROR = "died", "interrupted", "error"  # why an attempt failed
SURPLUS = "surplus"
OUTCOME = "outcome"  # what a finished attempt measured


@dataclass(frozen=True)
class Ticket:
    """One trial that the study owes.

    Args:
        number: Its number, from 0.
        attempts: Its attempts, which are Optuna's trials, in their order.
        retries: How many dead attempts are tried again.
    """

    number: int
    attempts: tuple["FrozenTrial", ...]
    retries: int

    @property
    def last(self) -> "FrozenTrial":
        """The attempt that counts: the finished one, or the last."""
        return next((each for each in self.attempts if each.state.name in ("COMPLETE", "PRUNED")), self.attempts[-1])

    @property
    def deaths(self) -> int:
        """How many attempts died."""
        attributes = self.last.user_attrs
        ended = self.last.state.name == "FAIL" and ERROR not in attributes and INTERRUPTED not in attributes
        return int(attributes.get(DEATHS, 0)) + ended

    @property
    def state(self) -> str:
        """The state of the ticket.

        ``waiting``, ``running``, ``completed`` or ``pruned``; ``failed`` after an exception or too many deaths;
        ``open`` if the last attempt ended early and has no successor yet.
        """
        state = self.last.state.name
        if state != "FAIL":
            return {"COMPLETE": "completed"}.get(state, state.lower())
        failed = ERROR in self.last.user_attrs or self.deaths > self.retries
        return "failed" if failed else "open"

    @property
    def is_done(self) -> bool:
        """Whether no further attempt follows."""
        return self.state in ("completed", "pruned", "failed")

    @property
    def reports(self) -> dict[int, float]:
        """The reported values by epoch, over all attempts. A database gives its rows in any order."""
        found = {step: value for each in self.attempts for step, value in each.intermediate_values.items()}
        return dict(sorted(found.items()))


def read_tickets(trials: Iterable["FrozenTrial"], retries: int) -> dict[int, Ticket]:
    """The tickets by their number, with the real attempts alone."""
    real: dict[int, dict[int, FrozenTrial]] = defaultdict(dict)
    for trial in sorted(trials, key=lambda each: each.number):
        if is_attempt(trial.user_attrs):
            real[int(trial.user_attrs[TICKET])].setdefault(int(trial.user_attrs[ATTEMPT]), trial)
    return {
        number: Ticket(number, tuple(attempts[each] for each in sorted(attempts)), retries)
        for number, attempts in sorted(real.items())
    }


def surplus_of(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """Trials that are no real attempt, because an earlier one has the same ticket and attempt."""
    seen: set[tuple[int, int]] = set()
    found = []
    for trial in sorted(trials, key=lambda each: each.number):
        if is_attempt(trial.user_attrs):
            key = int(trial.user_attrs[TICKET]), int(trial.user_attrs[ATTEMPT])
            if key in seen:
                found.append(trial)
            seen.add(key)
    return found


def is_attempt(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial belongs to a ticket."""
    return TICKET in attributes and ATTEMPT in attributes
