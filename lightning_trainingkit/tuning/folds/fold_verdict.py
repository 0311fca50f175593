"""The verdict of a cross-validation, from the results of its study."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from lightning_trainingkit.functional.resampled import resampled_mean
from lightning_trainingkit.tuning.folds.fold_race import FIRST, Race
from lightning_trainingkit.tuning.folds.fold_scores import ConfigurationScores, CrossValidation
from lightning_trainingkit.tuning.folds.folds import Folds
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_parts import final_weights

__all__ = ["judge", "last_value"]

_OVERLAP = "Intervals count with the overlap of the training sets (Nadeau and Bengio, 2003)."

_FAILED = (
    "Read `configurations[...].error`, and mend or leave out what failed. The same `name` keeps the failure: give "
    "another `name` and `folder`, so that all folds are trained again."
)


def last_value(result: Result) -> float | None:
    """The monitored value at the end of a training, None if the training failed or diverged."""
    return result.reports[max(result.reports)] if result.state == "completed" and result.reports else None


def judge(
    study: Study,
    race: Race,
    configurations: Sequence[Mapping[str, Any]],
    folds: Folds,
    monitor: str,
    prune: bool,
    notes: Sequence[str],
) -> CrossValidation:
    """Sum up the results of all folds.

    Args:
        study: The study, whose tickets are done.
        race: The race, which is over.
        configurations: The hyperparameters of each configuration.
        folds: The division of the train set.
        monitor: The metric.
        prune: Whether configurations could be pruned.
        notes: Remarks on the data.
    """
    results: dict[int, dict[int, Result]] = {number: {} for number in range(len(configurations))}
    for result in study.results():
        results[result.params.get("configuration", 0)][result.params["fold"]] = result
    scores = [
        _scores(given, results[number], race.out.get(number, (0, "completed"))[1], folds)
        for number, given in enumerate(configurations)
    ]
    sign = 1 if study.mode == "min" else -1
    means = {number: each.score.mean for number, each in enumerate(scores) if each.state == "completed" and each.score}
    ranked = sorted(means, key=lambda number: sign * means[number])
    failed = [number for number, each in enumerate(scores) if each.state == "failed"]
    best = ranked[0] if ranked else None
    verdict: Literal["pass", "warn", "fail"] = "fail" if best is None else "warn" if failed else "pass"
    found = CrossValidation(
        step="cross_validation",
        verdict=verdict,
        message="",
        advice=_FAILED if failed else "",
        value=None if best is None else means[best],
        monitor=monitor,
        mode=study.mode,
        folds=folds.folds,
        repeats=folds.repeats,
        configurations=tuple(scores),
        best=best,
        trained=sum(len(each) for each in results.values()),
    )
    failures = [_failure(scores[number], number) for number in failed]
    return replace(found, message=_message(found, ranked), notes=(*notes, _OVERLAP, *_pruning(found, prune), *failures))


def _scores(given: Mapping[str, Any], results: Mapping[int, Result], state: Any, folds: Folds) -> ConfigurationScores:
    last = {fold: last_value(result) for fold, result in sorted(results.items())}
    values = {fold: value for fold, value in last.items() if value is not None}
    errors = [_error(result, fold) for fold, result in sorted(results.items()) if last[fold] is None]
    enough = len(values) > 1 and state != "failed"
    return ConfigurationScores(
        hyperparameters=dict(given),
        state=state,
        values=values,
        score=resampled_mean(list(values.values()), 1 / folds.folds) if enough else None,
        checkpoints={fold: final_weights(results[fold].outcome) for fold in values},
        error=errors[0] if errors else "",
    )


def _error(result: Result, fold: int) -> str:
    return result.error or f"Fold {fold} diverged: the monitored value is not finite."


def _message(found: CrossValidation, ranked: Sequence[int]) -> str:
    if found.best is None:
        return "No configuration finished all folds."
    number = found.folds * found.repeats
    size = f"{found.folds} folds" + (f" x {found.repeats}" if found.repeats > 1 else "")
    half = (found.interval[1] - found.interval[0]) / 2
    value = f"{found.mean:.4g} ± {half:.2g} (95 % interval, {size})"
    if len(found.configurations) == 1:
        return f"{found.monitor} is {value}."
    said = f"Configuration {found.best} has the best {found.monitor} of {len(found.configurations)}: {value}."
    if len(ranked) < 2:
        return f"{said} No other finished all {number} folds."
    compared = found.compare(found.best, ranked[1])
    told = "better than" if compared.better == found.best else "not told from"
    difference = compared.difference
    return (
        f"{said} It is {told} configuration {ranked[1]}: the difference is {difference.mean:+.2g} ± "
        f"{difference.half:.2g} (p = {difference.p_value:.2g})."
    )


def _pruning(found: CrossValidation, prune: bool) -> list[str]:
    if not prune:
        return []
    number, count = found.folds * found.repeats, len(found.configurations)
    rule = f"Wilcoxon's test can prune nothing before fold {FIRST}: {FIRST} losses of {FIRST} have p = 1/16."
    if number <= FIRST or count < 2:
        return [f"Nothing could be pruned with {number} folds and {count} configurations. {rule}"]
    least = (number + FIRST * (count - 1)) / (number * count)
    return [f"{found.trained} of {number * count} trainings ran. Pruning can save at most {1 - least:.0%}. {rule}"]


def _failure(scores: ConfigurationScores, number: int) -> str:
    last = scores.error.strip().splitlines()[-1] if scores.error.strip() else "no result"
    return f"Configuration {number} failed: {last}"
