"""All steps together as one answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_trainingkit.tuning.searches.rounds import Candidate, candidates
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.searches.seven_steps import SevenSteps
from lightning_trainingkit.tuning.trials.wording import values_listed
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["seven_steps_result"]


def seven_steps_result(steps: Sequence[Verdict], ended: str, epochs: float, mode: str, folder: Path) -> SevenSteps:
    """Judge all steps.

    Args:
        steps: Their verdicts.
        ended: Why the loop ended.
        epochs: Epochs of all trainings.
        mode: Better end of the metric.
        folder: Folder of the files.
    """
    searches = [each for each in steps if isinstance(each, SearchResult)]
    best = _best(searches, mode)
    trials = sum(len(each.trials) for each in searches)
    if best is None:
        failed = next((each for each in steps if each.verdict == "fail"), None)
        why = f" {failed.message}" if failed is not None else ""
        return SevenSteps(
            step="seven_steps",
            verdict="fail" if failed is not None else "warn",
            message=f"{ended}{why}",
            advice=failed.advice if failed is not None else "",
            steps=tuple(steps),
            ended=ended,
            epochs=epochs,
            folder=folder,
        )
    last = searches[-1]
    trainings = f"{len(best.values)} training{'s' * (len(best.values) > 1)}"
    mean = sum(best.values) / len(best.values)
    verdict: Literal["pass", "warn"] = "warn" if any(each.verdict != "pass" for each in (*steps[:3], last)) else "pass"
    return SevenSteps(
        step="seven_steps",
        verdict=verdict,
        message=f"The best of {trials} trials ({epochs:.0f} epochs) has {last.monitor} {mean:.4g} in {trainings}, with "
        f"{values_listed(best.params)}. {ended}",
        advice=last.advice,
        value=best.estimate,
        best=dict(best.params),
        values=best.values,
        steps=tuple(steps),
        ended=ended,
        epochs=epochs,
        folder=folder,
    )


def _best(searches: Sequence[SearchResult], mode: str) -> Candidate | None:
    """The best configuration of all rounds of step 5, or of step 4, whose trials are shorter, if there is none."""
    refined = [result for each in searches if each.step == "refine_search" for result in each.trials]
    coarse = [result for each in searches if each.step == "coarse_search" for result in each.trials]
    return next(iter(candidates(refined, mode) or candidates(coarse, mode)), None)
