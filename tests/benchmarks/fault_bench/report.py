"""The numbers and tables of a run of FaultBench."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from .cases import SEEDS, Case
from .cures import ONE_LINE
from .judge import Judgement, alarms, cured
from .run import Outcome

__all__ = ["OTHER_PROGRAMS", "confusion", "fault_rows", "healthy_rows", "learned"]

OTHER_PROGRAMS = (
    "Other programs, on other programs than ours (published numbers, not comparable run by run). Detected and right "
    "cause, of DeepFD's 52 Keras programs: UMLAUT 50 and 14, AutoTrainer 12 and 10, DeepLocalize 36 and 7, DeepFD 47 "
    "and 27. DEFault: about 94 % and 63 %. False alarms on AUTOTRAINER's healthy trainings: DeepDiagnosis 68 of 188, "
    "DeepLocalize 133 of 186. TrainCheck: 18 of 20 silent errors, false alarms below 2 %, with reference runs."
)
FALSE_ALARMS = 4 / 200
LEARNS = 0.15  # points below the best of a family that a run may end


def share(name: str, hits: Sequence[bool], goal: float | None, at_least: bool = True) -> dict[str, Any]:
    """One row: the percentage of hits, its goal, and whether it is met. Nothing counted meets no goal."""
    value = 100 * sum(hits) / len(hits) if hits else None
    met = goal is None or (value is not None and (value >= goal if at_least else value <= goal))
    return {"name": name, "value": value, "of": len(hits), "goal": goal, "ok": met}


def fault_rows(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Detection, causes and cures, of the faults that count."""
    counted = [each for each in judgements if each.counts]
    detected = [each for each in counted if each.detected]
    harmful = [
        each
        for each in counted
        if not each.case.verify and each.case.settings.seed == SEEDS[0] and each.case.expect & ONE_LINE
    ]
    rows = [
        share(f"detected, {grade}, %", [each.detected for each in counted if each.case.grade.startswith(grade)], 95.0)
        for grade in ("edge", "extreme")
    ]
    return [
        *rows,
        share("right cause first, % of all that count", [each.right == 0 for each in counted], 80.0),
        share(
            "right cause in the first three, % of all that count",
            [each.right is not None and each.right < 3 for each in counted],
            95.0,
        ),
        share("right cause first, % of the detected", [each.right == 0 for each in detected], None),
        share(
            "first advice brings back 90 % of the healthy accuracy, %",
            [bool(each.kinds) and cured(each.cured.get(each.kinds[0], 0.0), each.twin) for each in harmful],
            80.0,
        ),
        share("faulty runs that count, %", [each.counts for each in judgements], None),
    ]


def healthy_rows(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """False alarms, and whether each healthy training learned."""
    return [
        share("false alarms, %", [bool(alarms(outcome)) for outcome in outcomes], 100 * FALSE_ALARMS, False),
        share("healthy trainings that learned, %", learned(cases, outcomes), 100.0),
    ]


def learned(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[bool]:
    """Whether each healthy training ended near the best of its family, and far above chance."""
    best: dict[str, float] = defaultdict(float)
    for case, outcome in zip(cases, outcomes, strict=True):
        best[case.plant] = max(best[case.plant], outcome.score)
    return [
        outcome.finite and outcome.score >= max(0.5, best[case.plant] - LEARNS)
        for case, outcome in zip(cases, outcomes, strict=True)
    ]


def confusion(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Each fault to how often each kind was found first, with the kinds that are right in brackets."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    expected: dict[str, frozenset[str]] = {}
    for each in judgements:
        name = f"{each.case.plant}, {each.case.grade}"
        expected[name] = each.case.expect
        if each.counts:
            table[name][each.kinds[0] if each.kinds else "nothing"] += 1
        else:
            table[name]["(did no harm)"] += 1
    return [
        {
            "planted": name,
            "right": ", ".join(sorted(expected[name])),
            "first finding": ", ".join(f"{kind} {times}" for kind, times in found.most_common()),
        }
        for name, found in table.items()
    ]
