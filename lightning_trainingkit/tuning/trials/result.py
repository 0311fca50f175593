"""What came of a ticket."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_trainingkit.tuning.trials.tickets import DIED, ERROR, OUTCOME, Ticket

__all__ = ["Result", "best_first", "configurations", "counted", "result_of", "trained_epochs"]


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

    @property
    def word(self) -> str:
        """The state as a person reads it: Optuna counts a diverged trial among the pruned ones."""
        return "diverged" if self.outcome.get("diverged") else self.state


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


def best_first(results: Iterable[Result], mode: str) -> list[Result]:
    """The completed results, the best first.

    Args:
        results: Results of trials in any state.
        mode: Better end of the metric.
    """
    completed = [each for each in results if each.state == "completed" and each.value is not None]
    return sorted(completed, key=lambda each: (1 if mode == "min" else -1) * float(each.value or 0.0))


def counted(results: Iterable[Result]) -> list[str]:
    """How many trials did not train to their end, in words, such as ``["2 pruned", "1 diverged"]``."""
    words = [each.word for each in results]
    return [f"{words.count(name)} {name}" for name in ("pruned", "diverged", "failed") if name in words]


def configurations(results: Iterable[Result]) -> list[tuple[dict[str, Any], list[float]]]:
    """Each configuration with the values of all its trainings, in the order of the results."""
    found: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for each in results:
        if each.state == "completed" and each.value is not None:
            key = repr(sorted(each.params.items()))
            found.setdefault(key, (each.params, []))[1].append(float(each.value))
    return list(found.values())


def trained_epochs(result: Result) -> int:
    """Epochs that a trial trained. An epoch that a dead attempt trained and a later one repeated counts once."""
    known: Sequence[int] = [
        *result.reports,
        int(result.outcome.get("epochs", 0)) + int(result.outcome.get("resumed", 0)),
    ]
    return max(known, default=0)
