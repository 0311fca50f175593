"""What the checks say about a run: the verdicts in its config, and the shape of its curves."""

import re
from dataclasses import replace

from lightning_trainingkit.dashboards.read.record import Record

__all__ = ["CHECKS", "checks_of", "without_checks"]

CHECKS = {
    "curves": "curves",
    "initial_loss": "initial loss",
    "small_sample": "small sample",
    "learning_rate": "learning rate",
    "health": "health",
}
"""Each check to its title. All but ``curves`` are verdicts in the run's config, such as ``check.initial_loss``."""

_SETTINGS = {f"check.{name}": name for name in CHECKS if name != "curves"}
_CHECK = re.compile(
    rf"({'|'.join(map(re.escape, _SETTINGS))})(\..*)?$"
)  # with details, such as the rates that were found


def checks_of(run: Record) -> dict[str, str]:
    """Collect what the checks say, by the names in ``CHECKS``: a text that begins with pass, warn or fail.

    Args:
        run: The recorded run.

    Example:
        >>> checks_of(Record("1", config={"lr": 0.1, "check.health": "pass. Nothing wrong."}))
        {'health': 'pass. Nothing wrong.'}
    """
    return {name: str(run.config[key]) for key, name in _SETTINGS.items() if run.config.get(key)}


def without_checks(run: Record) -> Record:
    """Return the run without the verdicts in its config, which are no settings."""
    kept = {name: value for name, value in run.config.items() if not _CHECK.match(name)}
    return run if len(kept) == len(run.config) else replace(run, config=kept)
