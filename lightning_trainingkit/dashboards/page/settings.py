"""The runs' settings as columns: the settings that differ, without copies, and the settings that all runs share."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.read.record import Record

__all__ = ["columns", "every_setting", "hyperparameters", "shared_settings"]

Values = list[Any]  # values of one setting, one for each run; None if the run lacks it

_DESCRIBED = re.compile(r"model|(trainer|optimizers|schedulers|callbacks|versions)\..*")  # written by CommandCenter
# Arguments of CommandCenter and folders of checkpoints say where a training is stored, and nothing about the training.
_BOOKKEEPING = re.compile(r"_instantiator|callbacks\.((CommandCenter|SaveConfigCallback)(-\d+)?\..*|[^.]+\.dirpath)")
_OWN = re.compile("((run|experiment)_)?(name|id|group|tags|version|job_type)")
_LOGGER = re.compile("logger|wandb|run|experiment")
_ABSOLUTE = re.compile(r"(/|~/|[A-Za-z]:[\\/]|\\\\).+")
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UNIQUE = re.compile(rf"\w+://.*|.*\d{{4}}-\d\d-\d\d.*|.*\d{{8}}[-_T]?\d{{6}}.*|{_UUID}")
_UNIQUE_NAME = re.compile(
    r"(.*[._])?((run|job|task|process|experiment|exp|wandb)_?id|u?uid|pid|timestamp|(start|end)_time|datetime)"
)
_MANY = 3  # runs; a path that differs between two runs may be the difference of interest


def every_setting(runs: Sequence[Record]) -> dict[str, Values]:
    """Collect the values of each setting that a run has."""
    found: dict[str, Values] = {}
    for place, run in enumerate(runs):
        for name, value in run.config.items():
            if value is None:
                continue
            if isinstance(value, float) and not np.isfinite(value):
                value = str(value)
            found.setdefault(name, [None] * len(runs))[place] = value
    return found


def shared_settings(every: Mapping[str, Values], runs: Sequence[Record]) -> dict[str, Values]:
    """Select the settings that do not differ between the runs.

    A training that lacks a setting differs from a training that has it, with two exceptions:

    - **Evaluations** may have no settings. Only runs with curves are compared in this way.
    - **Settings that CommandCenter writes** are compared in this way among its own runs alone.
    """
    trained = [place for place, run in enumerate(runs) if run.curves]
    described = [place for place in trained if any(name.startswith("versions.") for name in runs[place].config)]
    return {
        name: values
        for name, values in every.items()
        if not _differ(values, described if _DESCRIBED.fullmatch(name) else trained)
    }


def columns(every: Mapping[str, Values], runs: Sequence[Record]) -> dict[str, Values]:
    """Select the settings that differ and are informative.

    These settings are left out:

    - **Copies**: of settings with equal values in every run, the shortest name stays. A seed is a copy of seeds alone.
    - **Optimizer settings** that repeat a setting of the module: ``optimizers.0.lr`` beside ``lr``.
    - **Bookkeeping**: arguments of ``CommandCenter``, folders of checkpoints, and the run's name, group and tags.
    - **Paths, addresses, times and identities** that differ in each of three or more runs.

    Absolute paths lose their common folder.
    """
    shared = shared_settings(every, runs)
    ordered = sorted(every.keys() - shared.keys(), key=lambda name: (name.count("."), len(name), name))
    found: dict[tuple[bool, str], str] = {}
    for name in ordered:
        if not (_BOOKKEEPING.fullmatch(name) or _is_own(name, every[name], runs) or _is_unique(name, every[name])):
            found.setdefault((_is_seed(name), repr([_plain(value) for value in every[name]])), name)
    others = {name: every[name] for name in (*found.values(), *shared) if not _DESCRIBED.fullmatch(name)}
    kept = [name for name in found.values() if not _repeats(name, every[name], others)]
    return {name: _shortened(every[name]) for name in sorted(kept)}


def hyperparameters(settings: Mapping[str, Values]) -> list[str]:
    """Select the settings that may have an effect: numbers, and words that several runs share. Copies count once."""
    found: dict[str, str] = {}
    for name in sorted(settings, key=lambda name: (name.count("."), len(name), name)):
        there = [value for value in settings[name] if value is not None]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
        kinds = {str(value) for value in settings[name]}
        if len(kinds) < 2 or name.startswith("versions.") or any(kind.startswith("***") for kind in kinds):
            continue
        if not numeric and (len(kinds) > 12 or len(kinds) == len(settings[name]) > 2):
            continue
        found.setdefault(repr(settings[name]), name)
    return list(found.values())


def _differ(values: Sequence[Any], trained: Sequence[int]) -> bool:
    return len({repr(value) for value in values if value is not None}) > 1 or (
        len({repr(values[place]) for place in trained}) > 1
    )


def _is_seed(name: str) -> bool:
    return name.rpartition(".")[2].lower().endswith("seed")


def _plain(value: Any) -> Any:
    """The value, with 1 and 1.0 as the same number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_own(name: str, values: Values, runs: Sequence[Record]) -> bool:
    """Whether a setting only repeats the runs' names, groups, tags or other identity."""
    above, _, last = name.rpartition(".")
    own = _OWN.fullmatch(last) is not None and (not above or _LOGGER.search(above) is not None)
    return own and all(
        value is None or str(value) in (run.id, run.name, run.group, run.job_type, str(run.tags), *run.tags)
        for value, run in zip(values, runs, strict=True)
    )


def _is_unique(name: str, values: Values) -> bool:
    """Whether a setting identifies each run, as a path, time or id does, and has no other use."""
    there = [value for value in values if value is not None]
    if len(there) < _MANY or len(set(map(repr, there))) < len(there):
        return False
    texts = all(isinstance(value, str) and (_ABSOLUTE.fullmatch(value) or _UNIQUE.fullmatch(value)) for value in there)
    return texts or _UNIQUE_NAME.fullmatch(name.lower()) is not None


def _repeats(name: str, values: Values, others: Mapping[str, Values]) -> bool:
    """Whether a setting of an optimizer equals one of the module in all runs that have the optimizer's setting."""
    part = re.sub(r"^optimizers\.\d+\.", ".", name)
    return part != name and any(
        all(mine is None or _plain(mine) == _plain(own) for mine, own in zip(values, others[other], strict=True))
        for other in others
        if f".{other}".endswith(part)
    )


def _shortened(values: Values) -> Values:
    """Cut the common folder from absolute paths."""
    if not all(value is None or (isinstance(value, str) and _ABSOLUTE.fullmatch(value)) for value in values):
        return values
    parts = [value and re.split(r"[\\/]", value.rstrip("\\/")) for value in values]
    there = [each for each in parts if each]
    most = min(map(len, there)) - 1
    common = next((place for place in range(most) if len({each[place] for each in there}) > 1), most)
    return [each and "/".join(each[common:]) for each in parts]
