"""Copy a train set, and give the copy the validation set's settings: transforms and flags, but not its data."""

import copy
from collections.abc import Callable, Sized
from typing import Any

from torch.utils.data import Dataset

from lightning_trainingkit._lightning import isolate_rng
from lightning_trainingkit.tuning.folds.fold_labels import label_of
from lightning_trainingkit.tuning.folds.fold_reads import same

__all__ = ["twin_of"]

_TRANSFORMS = ("transform", "transforms", "target_transform", "augmentation", "_augmentation")
_READS = 8  # examples that show whether a setting chooses the examples
_SETTING = 16  # longest tuple, list or dict that may be a setting, such as a size

Examples = list[tuple[Any, Any]]  # each is read twice


def twin_of(train: Any, val: Any, inner: Callable[[Any, Any], Any]) -> tuple[Any, list[str]]:
    """A copy of a train set that reads its own examples as the validation set reads its own.

    - **Transforms**, by name: those of the validation set.
    - **Data sets** in an attribute: their own twins.
    - **Other settings** that differ, such as ``train=True``: those of the validation set, if the copy then still reads
      its own examples. A setting such as a folder stays.
    - **Data**, such as ``targets``: the train set's.

    Args:
        train: The train set, below all ``Subset``.
        val: The validation set of the same class, below all ``Subset``.
        inner: Makes the twin of a data set in an attribute.

    Returns:
        The copy, and the names of the other settings that were taken from the validation set.
    """
    mine, other = (dict(getattr(each, "__dict__", {})) for each in (train, val))
    twin, settings = train, []
    for name in mine.keys() & other.keys():
        if name in _TRANSFORMS:
            twin = _with(twin, name, other[name])
        elif isinstance(mine[name], Dataset) and isinstance(other[name], Dataset):
            twin = _with(twin, name, inner(mine[name], other[name]))
        elif _may_be_setting(mine[name], other[name], len(train)) and not _equal(mine[name], other[name]):
            settings.append(name)
    if not settings:
        return twin, []
    data = mine.keys() - {*settings, *_TRANSFORMS}
    alike = all(name in other and _equal(mine[name], other[name]) for name in data)
    count = _count(train, val)
    with isolate_rng():
        own, reads, taken = _read(val, count), _read(twin, count), list[str]()
        # A text or a number may be the place of the examples, which can be told when flags have ended random reads.
        pending, progress = sorted(settings, key=lambda name: (_may_be_place(mine[name]), name)), True
        while progress:
            progress = False
            for name in [*pending]:
                changed = _with(twin, name, other[name])
                found = _read(changed, count)
                if _count(changed, train) != len(train) or not _fits(
                    reads, found, own, alike, _may_be_place(mine[name])
                ):
                    continue
                taken += [name] if reads is None or not _same_examples(reads, found or []) else []
                twin, reads, progress = changed, found, True
                pending.remove(name)
    return twin, taken


def _fits(reads: Examples | None, found: Examples | None, own: Examples | None, alike: bool, place: bool) -> bool:
    """Whether a changed setting leaves the train set's own examples.

    Args:
        reads: Examples before the change.
        found: Examples after the change.
        own: Examples of the validation set.
        alike: Whether both data sets have the same data.
        place: Whether the setting may be the place of the examples.
    """
    if found is None or (reads is not None and not _same_labels(reads, found)):
        return False
    if place and _is_random(found):
        return False
    if own is None or not _same_examples(found, own):
        return True
    return alike and not (place and (reads is None or not _is_random(reads)))


def _with(dataset: Any, name: str, value: Any) -> Any:
    changed = copy.copy(dataset)
    vars(changed)[name] = value
    return changed


def _may_be_setting(one: Any, other: Any, size: int) -> bool:
    """Whether an attribute may be a setting: a flag, a text, a function, an object, or a short tuple of such."""
    for each in (one, other):
        if isinstance(each, Dataset):
            return False
        if callable(each) or isinstance(each, str) or not isinstance(each, Sized):
            continue
        if not isinstance(each, tuple | list | dict) or len(each) > _SETTING or len(each) == size:
            return False
        if any(isinstance(value, Sized) and not callable(value) and not isinstance(value, str) for value in each):
            return False
        if isinstance(each, dict) and any(isinstance(value, Sized) and not callable(value) for value in each.values()):
            return False
    return True


def _may_be_place(value: Any) -> bool:
    return not isinstance(value, bool) and not callable(value) and value is not None


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # tensors and arrays, alone or in a list
        return same(one, other)


def _count(one: Any, other: Any) -> int:
    """The examples of the smaller data set, 0 if one has no length."""
    try:
        return min(len(one), len(other))
    except Exception:  # a stream, or a setting that is the place of the files
        return 0


def _read(dataset: Any, count: int) -> Examples | None:
    """Read some of the first examples, each twice. None if the user's code raises."""
    numbers = sorted({each * count // _READS for each in range(_READS)}) if count else []
    try:
        return [(dataset[number], dataset[number]) for number in numbers]
    except Exception:  # a setting that is the place of the files may raise anything
        return None


def _is_random(read: Examples) -> bool:
    return any(not same(*pair) for pair in read)


def _same_examples(one: Examples, other: Examples) -> bool:
    return all(same(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def _same_labels(one: Examples, other: Examples) -> bool:
    return all(same(label_of(mine[0]), label_of(theirs[0])) for mine, theirs in zip(one, other, strict=True))
