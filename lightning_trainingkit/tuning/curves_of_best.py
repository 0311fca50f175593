"""Step 6 of the loop: read the curves of the best trial of a search."""

from pathlib import Path

from lightning_trainingkit.tuning.curves import read_curves
from lightning_trainingkit.tuning.search_result import SearchResult
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["look_at_curves"]


def look_at_curves(search: SearchResult, recorded: bool) -> Verdict:
    """Read the curves of a search's best trial.

    Args:
        search: The search.
        recorded: Whether its trials were recorded by W&B.

    Returns:
        What ``read_curves`` says, or why there is nothing to read.
    """
    best = next(iter(search.ranked), None)
    folder = Path(str(best.outcome.get("folder", ""))) if best is not None else Path()
    missing = "No trial was finished." if best is None else ""
    if not missing and not recorded:
        missing = "No curves were recorded: W&B is disabled."
    if not missing:
        try:
            reading = read_curves(folder)
            return reading[-1] if isinstance(reading, list) else reading
        except (OSError, ValueError) as error:
            missing = str(error)
    return Verdict(step="curves", verdict="warn", message=missing)
