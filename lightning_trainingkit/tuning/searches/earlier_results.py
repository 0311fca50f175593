"""Results of other studies, from which a study's sampler and pruner learn."""

import time
from collections.abc import Iterator, Sequence

from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.storage import import_optuna, patient
from lightning_trainingkit.tuning.trials.study import Study

__all__ = ["add_earlier"]

EARLIER = "earlier"  # user attribute of such a trial, which belongs to no ticket: its number among the results
_WAIT = 10.0  # seconds for the worker that made the study to add a further result


def add_earlier(study: Study, space: Space, results: Sequence[Result]) -> None:
    """Add results to Optuna's study, once. They are no tickets of this study: its results do not hold them.

    Args:
        study: The study.
        space: Its space, which holds all results.
        results: Results of trainings that are as long as those of this study.
    """
    optuna = import_optuna()
    states = {"completed": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    for number, each in _missing(study, results):
        trial = optuna.trial.create_trial(
            state=states[each.state],
            value=each.value,
            params={name: each.params[name] for name in space},
            distributions=space.to_distributions(),
            intermediate_values=dict(each.reports),
            user_attrs={EARLIER: number},
        )
        patient(lambda trial=trial: study.optuna.add_trial(trial))  # type: ignore[misc]


def _missing(study: Study, results: Sequence[Result]) -> Iterator[tuple[int, Result]]:
    """The results that are to be added, with their numbers.

    The worker that made the study adds them. Another worker waits for it, and adds the others only if it has died.
    """
    wanted = {number: each for number, each in enumerate(results) if _counts(each)}
    known, since = -1, time.monotonic()
    while True:
        trials = patient(lambda: study.optuna.get_trials(deepcopy=False))
        there = {each.user_attrs.get(EARLIER) for each in trials} & {*wanted}
        if study.made or len(there) == len(wanted) or time.monotonic() - since > _WAIT:
            break
        if len(there) != known:
            known, since = len(there), time.monotonic()
        time.sleep(0.05)
    yield from ((number, each) for number, each in wanted.items() if number not in there)


def _counts(result: Result) -> bool:
    return result.state == "pruned" or (result.state == "completed" and result.value is not None)
