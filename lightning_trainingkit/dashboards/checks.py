"""What the checks say about a run: the verdicts in its config, and the shape of its curves."""

import re
from dataclasses import replace

from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.functional.curve_names import choose_curves
from lightning_trainingkit.functional.curve_shape import curve_shapes

__all__ = ["CHECKS", "SEARCHES", "checks_of", "is_search", "is_trial", "searches_of", "without_checks"]

CHECKS = {
    "curves": "curves",
    "initial_loss": "initial loss",
    "small_sample": "small sample",
    "learning_rate": "learning rate",
    "health": "health",
}
"""Each check to its title. All but ``curves`` are verdicts in the run's config, such as ``check.initial_loss``."""

SEARCHES = {
    "search": "search",
    "edges": "edge of the space",
    "samples": "sampled enough",
    "isolation": "isolation",
    "importance": "importance",
    "divergence": "divergence",
    "failures": "failures",
    "noise": "noise of the training",
}
"""Each question to a search to its title. The verdicts stand in a run's config, such as ``search.edges``."""

_TRIAL = tuple(f"trial.{name}" for name in ("study", "ticket", "attempt", "seed", "pruned"))  # of a search
_DRAWN = ("trainer.seed", "callbacks.EpochSeed.seed")  # for each trial
_SETTINGS = {f"check.{name}": name for name in CHECKS if name != "curves"}
_CHECK = re.compile(
    rf"({'|'.join(map(re.escape, [*_SETTINGS, *(f'search.{name}' for name in SEARCHES)]))})(\..*)?$"
)  # with details, such as the rates that were found


def checks_of(run: Record) -> dict[str, str]:
    """Collect what the checks say, by the names in ``CHECKS``: texts that begin with pass, warn or fail.

    Curves have no such word if their shape is unclear, or if a running training still lowers them.

    Args:
        run: The recorded run.

    Example:
        >>> checks_of(Record("1", config={"lr": 0.1, "check.health": "pass. Nothing wrong."}))
        {'health': 'pass. Nothing wrong.'}
    """
    found = {"curves": line} if (line := _curve_line(run)) else {}
    return found | {name: str(run.config[key]) for key, name in _SETTINGS.items() if run.config.get(key)}


def searches_of(run: Record) -> dict[str, str]:
    """Collect what the tuning playbook says of a search, by the names in ``SEARCHES``.

    Example:
        >>> searches_of(Record("1", config={"lr": 0.1, "search.edges": "pass. The best `lr` lies inside."}))
        {'edges': 'pass. The best `lr` lies inside.'}
    """
    return {name: str(run.config[f"search.{name}"]) for name in SEARCHES if run.config.get(f"search.{name}")}


def is_search(run: Record) -> bool:
    """Whether a run is no training, and only holds the verdicts of a search.

    Example:
        >>> is_search(Record("1", config={"search.search": "pass. The best of 8 trials."}))
        True
    """
    return not run.curves and bool(searches_of(run))


def is_trial(run: Record) -> bool:
    """Whether a run is a trial of a search."""
    return run.config.get("trial.study") is not None


def without_checks(run: Record) -> Record:
    """Return the run without what is no setting in its config: the verdicts, and the number and the seed of a trial."""
    left_out = (*_TRIAL, *(_DRAWN if "trial.seed" in run.config else ()))
    kept = {name: value for name, value in run.config.items() if not _CHECK.match(name) and name not in left_out}
    return run if len(kept) == len(run.config) else replace(run, config=kept)


def _curve_line(run: Record) -> str:
    """The shape of the run's curves, and what to do. Empty for a run without a training loss."""
    curves = {name: curve.points for name, curve in run.curves.items()}
    chosen = choose_curves({name: len(steps) for name, (steps, _) in curves.items()})
    train = chosen.get("train_loss")
    if train is None or len(curves[train][0]) < 2:
        return ""
    first = curve_shapes({role: curves[name] for role, name in chosen.items()})[0]
    if run.state == "running" and first.shape == "cut_too_early":
        return f"still falling. {first.message}"
    word = first.shape.replace("_", " ")
    if first.shape == "unclear":
        return f"{word}. {first.message}"
    return f"{first.verdict}. {word}: {first.message} {first.advice}".rstrip()
