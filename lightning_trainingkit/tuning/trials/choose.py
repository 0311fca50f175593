"""Choose the hyperparameters of an attempt by one of Optuna's samplers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_trainingkit.tuning.trials.domains import Choices
from lightning_trainingkit.tuning.trials.space import Space

if TYPE_CHECKING:
    import optuna

__all__ = ["Sampler", "choose"]

Sampler: TypeAlias = "optuna.samplers.BaseSampler | Callable[[int], optuna.samplers.BaseSampler]"
"""A sampler, or a function that makes one from a seed: called for each ticket, so that no two workers draw the same."""


def choose(study: "optuna.Study", trial_id: int, space: Space, sampler: Sampler, seed: int) -> dict[str, Any]:
    """Choose what an attempt does not have yet, and store it. Hyperparameters of an earlier attempt are kept.

    Args:
        study: Optuna's study.
        trial_id: The attempt in the storage. It runs.
        space: The space.
        sampler: The sampler.
        seed: Seed for a sampler that is made here.
    """
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

    study.sampler = sampler if isinstance(sampler, BaseSampler) else sampler(seed)
    trial = Trial(study, trial_id)
    for name, domain in space.items():
        if isinstance(domain, Choices):
            trial.suggest_categorical(name, domain.values)
        elif domain.integer:
            trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
        else:
            trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    return dict(trial.params)
