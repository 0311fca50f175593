"""The numbers and tables of a run of FaultBench."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest

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
LEARNS = 0.3  # points below the best of a family that a run may end


def share(name: str, hits: Sequence[bool], goal: float | None, at_most: bool = False) -> dict[str, Any]:
    """One row: the share of hits with its 95 % interval, its goal, and whether the share meets it.

    Nothing counted meets no goal.
    """
    numbers: dict[str, float | None] = {"ours": None, "peer": None, "ratio": None, "low": None, "high": None}
    if hits:
        value = sum(hits) / len(hits)
        interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
        numbers |= {"ours": value, "ratio": value, "low": float(interval.low), "high": float(interval.high)}
        ok = goal is None or (value <= goal if at_most else value >= goal)
    else:
        ok = goal is None
    return {"name": f"{name}, share of {len(hits)}", **numbers, "goal": goal, "ok": ok}


def fault_rows(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Detection, causes and cures, of the faults that count."""
    counted = [each for each in judgements if each.counts]
    detected = [each for each in counted if each.detected]
    harmful = [
        each
        for each in counted
        if not each.case.verify and each.case.settings.seed == SEEDS[0] and each.case.expect & ONE_LINE
    ]
    right = [3 if each.right is None else each.right for each in counted]
    edge, extreme = ([each for each in counted if each.case.grade.startswith(grade)] for grade in ("edge", "extreme"))
    return [
        share("detected, edge", [each.detected for each in edge], 0.95),
        share("detected, extreme", [each.detected for each in extreme], 0.95),
        share("right cause first", [place == 0 for place in right], 0.80),
        share("right cause in the first three", [place < 3 for place in right], 0.95),
        share("right cause first, of the detected", [each.right == 0 for each in detected], None),
        share(
            "cured by the first advice",
            [bool(each.kinds) and cured(each.cured.get(each.kinds[0], 0.0), each.twin) for each in harmful],
            0.80,
        ),
        share("faults that count", [each.counts for each in judgements], None),
    ]


def healthy_rows(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """False alarms, and whether each healthy training learned."""
    return [
        share("false alarms", [bool(alarms(outcome)) for outcome in outcomes], FALSE_ALARMS, at_most=True),
        share("healthy trainings that learned", learned(cases, outcomes), 1.0),
    ]


def learned(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[bool]:
    """Whether each healthy training ended near the best of its family, and far above chance."""
    best: dict[str, float] = defaultdict(float)
    for case, outcome in zip(cases, outcomes, strict=True):
        best[case.plant] = max(best[case.plant], outcome.score)
    return [
        outcome.finite and outcome.score >= max(0.6, best[case.plant] - LEARNS)
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
            table[name]["(left out)"] += 1
    return [
        {
            "planted": name,
            "right": ", ".join(sorted(expected[name])),
            "first finding": ", ".join(f"{kind} {times}" for kind, times in found.most_common()),
        }
        for name, found in table.items()
    ]
