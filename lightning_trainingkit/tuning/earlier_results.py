"""Results of other studies, from which a study's sampler and pruner learn."""

from collections.abc import Sequence

from lightning_trainingkit.tuning.result import Result
from lightning_trainingkit.tuning.space import Space
from lightning_trainingkit.tuning.storage import import_optuna, patient
from lightning_trainingkit.tuning.study import Study

__all__ = ["add_earlier"]

EARLIER = "earlier"  # user attribute of such a trial, which belongs to no ticket


def add_earlier(study: Study, space: Space, results: Sequence[Result]) -> None:
    """Add results to Optuna's study, once. They are no tickets of this study: its results do not hold them.

    Args:
        study: The study.
        space: Its space, which holds all results.
        results: Results of trainings that are as long as those of this study.
    """
    optuna = import_optuna()
    kept = patient(lambda: study.optuna.get_trials(deepcopy=False))
    if any(EARLIER in each.user_attrs for each in kept):
        return
    states = {"completed": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    for each in results:
        if each.state not in states or (each.state == "completed" and each.value is None):
            continue
        trial = optuna.trial.create_trial(
            state=states[each.state],
            value=each.value,
            params={name: each.params[name] for name in space},
            distributions=space.to_distributions(),
            intermediate_values=dict(each.reports),
            user_attrs={EARLIER: each.ticket},
        )
        patient(lambda trial=trial: study.optuna.add_trial(trial))  # type: ignore[misc]
