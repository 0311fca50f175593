"""Samplers and pruners by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.searches.space_points import grid_points, quasi_random_points, random_points
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.storage import import_optuna

if TYPE_CHECKING:
    import optuna

__all__ = ["PRUNERS", "SAMPLERS", "Pruner", "Sampler", "Sampling", "check_sampler", "choose_pruner", "choose_sampling"]

Sampler: TypeAlias = "str | optuna.samplers.BaseSampler | Callable[[int], optuna.samplers.BaseSampler]"
Pruner: TypeAlias = "str | optuna.pruners.BasePruner"

SAMPLERS = ("quasi-random", "random", "grid", "tpe", "gp", "cma-es")
PRUNERS = ("median", "hyperband", "none")
_FIRST = 10  # points that fill the space before a sampler learns from results


@dataclass(frozen=True)
class Sampling:
    """How a search chooses its points.

    Args:
        points: Points that are known before the search.
        sampler: Chooses the other points: one of Optuna's samplers, or a function that makes one from a seed.
    """

    points: Sequence[Mapping[str, Any]]
    sampler: "optuna.samplers.BaseSampler | Callable[[int], optuna.samplers.BaseSampler]"


def choose_sampling(
    sampler: Sampler, space: Space, trials: int, seed: int, first: Sequence[Mapping[str, Any]] = (), known: int = 0
) -> Sampling:
    """Make the sampling of a search.

    Args:
        sampler: A name, one of Optuna's samplers, or a function that makes one from a seed.
        space: The space.
        trials: Number of trials.
        seed: Seed of the search.
        first: Points to try first.
        known: Number of earlier results from which the sampler learns.

    Raises:
        ImportError: If the sampler needs a package that is not installed.
        TypeError: If the sampler is of another type.
        ValueError: If the name is unknown, if a grid does not fit into the trials, or if the sampler ends searches.
    """
    optuna = import_optuna()
    samplers = optuna.samplers
    check_sampler(sampler)
    if not isinstance(sampler, str):
        if callable(sampler):  # a function that makes one
            check_sampler(sampler(seed))
        return Sampling(first, sampler)
    if sampler == "grid":
        return Sampling([*first, *grid_points(space, trials - len(first))], samplers.RandomSampler(seed=seed))
    count = max(0, trials - len(first))
    if sampler in ("quasi-random", "random"):
        draw = quasi_random_points if sampler == "quasi-random" else random_points
        return Sampling([*first, *draw(space, count, seed)], samplers.RandomSampler(seed=seed))
    start = max(0, min(_FIRST, trials // 2) - known - len(first))
    points = [*first, *quasi_random_points(space, start, seed)]

    def make(seed: int) -> Any:
        if sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=0 if known else max(1, start))
        if sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=max(1, start), warn_independent_sampling=False)
        return samplers.CmaEsSampler(seed=seed, n_startup_trials=max(1, start), warn_independent_sampling=False)

    return Sampling(points, make)


def check_sampler(sampler: Sampler) -> None:
    """Refuse what is no sampler.

    Raises:
        ImportError: If the sampler needs a package that is not installed.
        TypeError: If the sampler is of another type.
        ValueError: If the name is unknown, or if the sampler ends searches itself.
    """
    if not isinstance(sampler, str):
        samplers = import_optuna().samplers
        if not isinstance(sampler, samplers.BaseSampler) and not callable(sampler):
            raise TypeError(
                f"`sampler` must be a name or one of Optuna's samplers, got {sampler!r}. Names: {', '.join(SAMPLERS)}."
            )
        if isinstance(sampler, samplers.GridSampler | samplers.BruteForceSampler):
            raise ValueError(  # they stop Optuna's own loop, which no search runs
                f"`sampler` must choose a point for each trial, got {type(sampler).__name__}, which ends the search "
                "itself. Use sampler='grid'."
            )
        return
    _check.one_of("sampler", sampler, SAMPLERS, "Or give one of Optuna's samplers.")
    package = {"gp": "scipy", "cma-es": "cmaes"}.get(sampler)
    if package is not None and find_spec(package) is None:
        raise ImportError(f"sampler={sampler!r} needs {package}. Run: pip install {package}.")


def choose_pruner(pruner: Pruner, epochs: int, kept: Sequence[Mapping[str, Any]] = ()) -> Any:
    """Make a pruner.

    - **median**: stops a trial that is worse than the median of earlier trials at the same epoch, after the first
      fifth of its epochs, and not before four trials are finished.
    - **hyperband**: Hyperband of Optuna.
    - **none**: stops nothing.

    Args:
        pruner: A name, or one of Optuna's pruners.
        epochs: Epochs of a trial.
        kept: Configurations that are trained to their end: without the bad ones, their mean would be too good.

    Raises:
        TypeError: If the pruner is of another type.
        ValueError: If the name is unknown.
    """
    pruners = import_optuna().pruners
    if isinstance(pruner, pruners.BasePruner):
        return _kept(pruner, kept)
    if not isinstance(pruner, str):
        raise TypeError(
            f"`pruner` must be a name or one of Optuna's pruners, got {pruner!r}. Names: {', '.join(PRUNERS)}."
        )
    _check.one_of("pruner", pruner, PRUNERS, "Or give one of Optuna's pruners.")
    if pruner == "median":
        return _kept(pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 5)), kept)
    if pruner == "hyperband":
        return _kept(pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3), kept)
    return pruners.NopPruner()


def _kept(pruner: Any, kept: Sequence[Mapping[str, Any]]) -> Any:
    """The pruner, which stops none of some configurations."""
    if not kept:
        return pruner
    points = [dict(each) for each in kept]

    class _Keeping(import_optuna().pruners.BasePruner):  # type: ignore[misc]
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.params not in points and bool(pruner.prune(study, trial))

    return _Keeping()
