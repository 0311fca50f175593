"""What came of a ticket."""

from dataclasses import dataclass
from typing import Any

from lightning_trainingkit.tuning.tickets import DIED, ERROR, OUTCOME, Ticket

__all__ = ["Result", "result_of"]


@dataclass(frozen=True)
class Result:
    """What came of a ticket.

    Args:
        ticket: Number of the ticket.
        state: ``completed``, ``pruned`` or ``failed``.
        params: The hyperparameters.
        value: Best value of the monitored metric; of a pruned trial its last. None if it failed.
        reports: The monitored value after each epoch, over all attempts.
        attempts: How many attempts there were.
        outcome: Further numbers: ``epochs`` (that were trained by the last attempt), ``best_epoch``, ``seconds``,
            ``metrics``, ``folder``, ``resumed`` (the epochs that came from a checkpoint), ``diverged``.
        error: The traceback, or how the last attempt died.
        trial: Number of Optuna's trial.
    """

    ticket: int
    state: str
    params: dict[str, Any]
    value: float | None
    reports: dict[int, float]
    attempts: int
    outcome: dict[str, Any]
    error: str
    trial: int


def result_of(ticket: Ticket) -> Result:
    """The result of a ticket that is done."""
    last = ticket.last
    attributes = last.user_attrs
    return Result(
        ticket=ticket.number,
        state=ticket.state,
        params=dict(last.params),
        value=last.value if last.values else None,
        reports=ticket.reports,
        attempts=len(ticket.attempts),
        outcome=dict(attributes.get(OUTCOME, {})),
        error=str(attributes.get(ERROR) or attributes.get(DIED) or ""),
        trial=last.number,
    )
