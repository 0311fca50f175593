"""Judge findings: was a fault detected, and was the right cause named."""

from dataclasses import dataclass, field
from typing import Any

from .cases import Case
from .run import Outcome

__all__ = ["Judgement", "alarms", "cured", "judge"]

HARM = 0.10  # points of accuracy below the healthy twin
CURED = 0.90  # share of the healthy accuracy that counts as brought back


@dataclass(frozen=True)
class Judgement:
    """What the findings about a faulty training are worth.

    Args:
        counts: Whether the fault did harm, or was seen to happen.
        detected: Whether there is any finding above advice.
        kinds: Kinds of these findings, most likely cause first.
        right: Place of the first right kind, from 0; None without one.
        cured: Accuracy by kind after its advice was applied.
    """

    case: Case
    outcome: Outcome
    twin: float
    counts: bool
    detected: bool
    kinds: list[str]
    right: int | None
    cured: dict[str, float] = field(default_factory=dict)


def alarms(outcome: Outcome) -> list[Any]:
    """The findings above advice, one for each kind."""
    first: dict[str, Any] = {}
    for finding in outcome.findings:
        if finding.level != "advice":
            first.setdefault(finding.kind, finding)
    return list(first.values())


def cured(accuracy: float, twin: float) -> bool:
    """Whether an accuracy is at least 90 % of the healthy twin's."""
    return accuracy >= CURED * twin


def judge(case: Case, outcome: Outcome, twin: float, after_cure: dict[str, float]) -> Judgement:
    """Judge one faulty training.

    Args:
        case: The fault.
        outcome: Its training.
        twin: Accuracy of the healthy training.
        after_cure: Accuracy by kind after the advice of one of the first three findings was applied.
    """
    kinds = [finding.kind for finding in alarms(outcome)]
    counts = bool(outcome.verified) if case.verify else not outcome.finite or outcome.score <= twin - HARM
    right = None
    for place, kind in enumerate(kinds):
        # a fault that did no harm to the accuracy can't be shown to be cured by it
        by_cure = not case.verify and kind in after_cure and cured(after_cure[kind], twin)
        if kind in case.expect or by_cure:
            right = place
            break
    return Judgement(case, outcome, twin, counts, bool(kinds), kinds, right, after_cure)
