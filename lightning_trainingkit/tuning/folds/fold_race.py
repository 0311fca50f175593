"""A race of configurations over folds: a configuration that loses on the same folds is not trained on the others."""

import warnings
from collections.abc import Mapping
from typing import Any

from lightning_trainingkit.tuning.trials.quiet_optuna import quiet_optuna
from lightning_trainingkit.tuning.trials.storage import import_optuna

__all__ = ["FIRST", "Race", "run_race"]

FIRST = 4  # folds before which Wilcoxon's test cannot reach 0.1: four of four worse is 1 / 2 ** 4 = 0.0625
_THRESHOLD = 0.1

Key = tuple[int, int]


class Race:
    """What is to be trained, and who is out, as far as the results tell.

    Args:
        owed: Configuration and fold of each training, in the order of the tickets.
        out: For each configuration that left the race the number of folds it had, and why.
        is_over: Whether all owed trainings have a result.
    """

    def __init__(self, owed: list[Key], out: dict[int, tuple[int, str]], is_over: bool) -> None:
        self.owed = owed
        self.out = out
        self.is_over = is_over


def run_race(
    values: Mapping[Key, float | None], configurations: int, folds: int, *, mode: str = "min", prune: bool = True
) -> Race:
    """Run the race again from its start, on the results that there are. Every worker gets the same answer.

    All configurations train on fold 0, then those that are left on fold 1, and so on. From the fourth fold on,
    Optuna's ``WilcoxonPruner`` compares each with the best so far, on the same folds. Whoever is worse with
    ``p < 0.1`` is out. A configuration with a fold that failed or diverged is out too.

    Args:
        values: The monitored value by configuration and fold; None where a fold failed or diverged.
        configurations: Number of configurations.
        folds: Number of folds.
        mode: Whether low (``"min"``) or high (``"max"``) values are good.
        prune: Without it, all configurations are owed all folds at once.

    Example:
        >>> values = {(c, f): c + 0.1 * f for c in range(2) for f in range(5)}
        >>> race = run_race(values, 2, 5)
        >>> len(race.owed), race.out
        (9, {1: (4, 'pruned')})
    """
    if not prune:
        owed = [(configuration, fold) for fold in range(folds) for configuration in range(configurations)]
        gone = {each for each, _ in owed if any(values.get((each, fold), 0.0) is None for fold in range(folds))}
        return Race(owed, dict.fromkeys(sorted(gone), (folds, "failed")), all(each in values for each in owed))
    racing, owed, out = list(range(configurations)), [], dict[int, tuple[int, str]]()
    for fold in range(folds):
        round_ = [(configuration, fold) for configuration in racing]
        owed += round_
        if any(each not in values for each in round_):
            return Race(owed, out, False)
        out |= {
            configuration: (fold + 1, "failed") for configuration, _ in round_ if values[configuration, fold] is None
        }
        racing = [each for each in racing if each not in out]
        if fold + 1 >= FIRST and fold + 1 < folds and len(racing) > 1:
            lost = _losers({each: [_number(values[each, past]) for past in range(fold + 1)] for each in racing}, mode)
            out |= dict.fromkeys(lost, (fold + 1, "pruned"))
            racing = [each for each in racing if each not in out]
    return Race(owed, out, True)


def _losers(values: Mapping[int, list[float]], mode: str) -> list[int]:
    """Configurations that Optuna's pruner would prune beside the best one."""
    optuna = import_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=_THRESHOLD, n_startup_steps=FIRST)
    sign = 1 if mode == "min" else -1
    best = min(values, key=lambda each: (sign * sum(values[each]), each))

    def trial(configuration: int, state: Any, value: float | None) -> Any:
        steps = dict(enumerate(values[configuration]))
        return optuna.trial.create_trial(state=state, value=value, intermediate_values=steps)

    with quiet_optuna():
        study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    mean = sum(values[best]) / len(values[best])
    study.add_trial(trial(best, optuna.trial.TrialState.COMPLETE, mean))
    running = optuna.trial.TrialState.RUNNING
    return [each for each in values if each != best and pruner.prune(study, trial(each, running, None))]


def _number(value: float | None) -> float:
    assert value is not None  # the race has left out those without a value
    return value
