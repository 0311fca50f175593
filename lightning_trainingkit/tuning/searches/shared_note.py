"""A note in the storage that all workers of a search share: the first one that is written counts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_trainingkit.tuning.trials.storage import import_optuna, open_storage, patient

__all__ = ["read_note", "write_ended", "write_note"]

_NOTE = "trainingkit_note"
_WAIT = 10.0  # seconds for the worker that made the note to fill it


def read_note(storage: str | Path, name: str) -> dict[str, Any] | None:
    """Read a note. None if there is none."""
    optuna = import_optuna()
    opened = open_storage(storage)
    try:
        study = patient(lambda: optuna.load_study(study_name=name, storage=opened))
    except KeyError:
        return None
    found = patient(lambda: study.user_attrs).get(_NOTE)
    return None if found is None else dict(found)


def write_ended(storage: str | Path, name: str, ended: str) -> None:
    """Add to a note why the search ended."""
    optuna = import_optuna()
    study = patient(lambda: optuna.load_study(study_name=name, storage=open_storage(storage)))
    patient(lambda: study.set_user_attr(_NOTE, {**study.user_attrs[_NOTE], "ended": ended}))


def write_note(
    storage: str | Path, name: str, make: Callable[[], dict[str, Any]], counts: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the note of this name, made now if there is none that counts. Of two made at once, the first counts.

    A database lets one worker alone create a study of a name, so a study without trials holds the note.

    Args:
        storage: A file for a journal, or the URL of a database.
        name: Name of the note.
        make: Makes its content, plain values.
        counts: Whether a note counts. A note that does not is replaced, such as that of a step that failed.

    Raises:
        ValueError: If a study of this name was made by another program.
    """
    found = read_note(storage, name)
    if found is not None and counts(found):
        return found
    content = make()
    optuna = import_optuna()
    opened = open_storage(storage)
    from lightning_trainingkit.tuning.trials.quiet_optuna import quiet_optuna

    with quiet_optuna():
        try:
            study = patient(lambda: optuna.create_study(study_name=name, storage=opened))
        except optuna.exceptions.DuplicatedStudyError:
            end = time.monotonic() + _WAIT
            while (found := read_note(storage, name)) is None and time.monotonic() < end:
                time.sleep(0.1)
            if found is not None and counts(found):
                return found
            study = patient(lambda: optuna.load_study(study_name=name, storage=opened))
            if patient(lambda: len(study.get_trials(deepcopy=False))):
                raise ValueError(
                    f"`name` must be free or a search of the kit, got {name!r}, which another program made. Give "
                    "another name."
                ) from None
        patient(lambda: study.set_user_attr(_NOTE, content))
    return content
