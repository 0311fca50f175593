"""Read a search, or all steps, from a storage: what a report needs, without the module."""

from pathlib import Path

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.searches.first_steps import FirstSteps
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.searches.search_run import search_result
from lightning_trainingkit.tuning.searches.search_settings import SETTINGS
from lightning_trainingkit.tuning.searches.seven_steps import SevenSteps
from lightning_trainingkit.tuning.searches.seven_steps_result import seven_steps_result
from lightning_trainingkit.tuning.searches.shared_note import read_note
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.storage import import_optuna, open_storage, patient
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["load_report"]


def load_report(storage: str | Path, name: str, folder: str | Path | None = None) -> SearchResult | SevenSteps:
    """Read what a search has found so far. Nothing is trained.

    Args:
        storage: A file for a journal, or the URL of a database.
        name: Name of ``coarse_search``, ``refine_search`` or ``seven_steps``.
        folder: Folder of its files, by default ``runs/NAME``.

    Returns:
        The search, or all steps. ``report`` is the text in Markdown.

    Raises:
        ValueError: If the storage is a file that does not exist, or has no such search. The names of others are listed.

    Example:
        >>> load_report("sqlite://", "seven_steps")
        Traceback (most recent call last):
        ValueError: `study` must be the name of a search in the storage, got 'seven_steps'. There are: none.
    """
    optuna = import_optuna()
    folder = Path("runs", name) if folder is None else Path(folder)
    if "://" not in str(storage) and not Path(storage).is_file():  # a journal would be created
        raise ValueError(
            f"`storage` must be where the search is, got {storage}, which does not exist. Name its file, or the URL."
        )
    opened = open_storage(storage)
    found = patient(lambda: optuna.get_all_study_summaries(opened))
    searches = [each.study_name for each in found if SETTINGS in each.user_attrs]
    if name in searches:
        return _search(storage, name, folder, [], ended=False)
    note = read_note(storage, name)
    if note is None:
        known = [each.study_name for each in found]
        raise ValueError(
            f"`study` must be the name of a search in the storage, got {name!r}. There are: "
            f"{', '.join(_check.nearest(name, known)) or 'none'}."
        )
    first = FirstSteps.from_json(note)
    steps: list[Verdict] = list(first.verdicts)
    earlier: list[Result] = []
    epochs, mode = first.epochs, "min"
    for each in studies_of(name, searches):
        part = folder / each.removeprefix(f"{name}-")
        steps.append(search := _search(storage, each, part, earlier, ended="ended" in note))
        earlier += search.trials if search.step == "refine_search" else ()
        epochs, mode = epochs + search.epochs, search.mode
    return seven_steps_result(steps, str(note.get("ended", "The search has not ended.")), epochs, mode, folder)


def studies_of(name: str, names: list[str]) -> list[str]:
    """The studies of the seven steps among all names in a storage, in their order.

    Example:
        >>> studies_of("a", ["a-refine-10", "a-refine-2", "a-coarse", "a-b-coarse"])
        ['a-coarse', 'a-refine-2', 'a-refine-10']
    """
    rounds = [each for each in names if each.rpartition("-refine-")[0] == name and each.rpartition("-")[2].isdigit()]
    coarse = [each for each in names if each == f"{name}-coarse"]
    return coarse + sorted(rounds, key=lambda each: int(each.rpartition("-")[2]))


def _search(storage: str | Path, name: str, folder: Path, earlier: list[Result], *, ended: bool) -> SearchResult:
    study = Study.load(storage, name)
    settings = dict(patient(lambda: study.optuna.user_attrs)[SETTINGS])
    inside = [
        each
        for each in earlier
        if set(each.params) == set(study.space)
        and all(study.space.holds(key, value) for key, value in each.params.items())
    ]
    return search_result(study, settings, folder, inside, ended)
