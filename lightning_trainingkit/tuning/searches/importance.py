"""How much of the result each hyperparameter explains."""

import math
import warnings
from collections.abc import Sequence

from lightning_trainingkit.tuning.trials.quiet_optuna import quiet_optuna
from lightning_trainingkit.tuning.trials.result import Result, best_first, configurations
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.storage import import_optuna

__all__ = ["importances"]

_LEAST = 4  # finished trials


def importances(space: Space, results: Sequence[Result], mode: str, seed: int = 0) -> dict[str, float]:
    """Share of the variance of the trials' ranks that each hyperparameter explains, by Optuna's fANOVA.

    Ranks, since one diverging loss would have all the variance. Empty with fewer than four finished
    trials, or fewer than two configurations.

    Args:
        space: The space that was searched.
        results: Results of the trials.
        mode: Better end of the metric.
        seed: Seed of the forest.
    """
    optuna = import_optuna()
    done = best_first(results, mode)
    if len(done) < _LEAST or done[0].value == done[-1].value or len(configurations(done)) < 2:
        return {}
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study()
        distributions = space.to_distributions()
        for rank, each in enumerate(done):
            params = {name: each.params[name] for name in distributions}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(rank)))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
