"""What the study of a cross-validation keeps, to refuse the same name with other folds."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_trainingkit.tuning.trials.study import Study

__all__ = ["check_stored", "groups_named"]


def groups_named(groups: Sequence[Any] | str | None) -> str | None:
    """What stands for the groups in the study: their name, or a short hash."""
    if groups is None or isinstance(groups, str):
        return groups
    return f"{len(groups)} groups {hashlib.sha1(repr(list(groups)).encode()).hexdigest()[:12]}"


def check_stored(storage: str | Path, name: str, facts: Mapping[str, Any]) -> None:
    """Refuse other facts than the study has, under the user's own words, before the study compares its space.

    Args:
        storage: The journal file or the database.
        name: Name of the study. A study that does not exist yet is not made.
        facts: Arguments by name.

    Raises:
        ValueError: If the study has another value.
    """
    try:
        stored = Study.load(storage, name)
    except ValueError:  # there is no such study yet, or another program made it, which `Study` refuses
        return
    if not stored.is_void and "fold" in stored.space and set(stored.space) <= {"configuration", "fold"}:
        stored.check_facts(facts)
