"""Find the class of each example of a data set, if possible without loading an image."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

__all__ = ["find_column", "find_labels", "label_of"]

_NAMES = ("targets", "labels", "y")
_KEYS = ("label", "labels", "target", "targets", "y", "class")
_FEW = 10  # different floats that may be classes


def find_labels(dataset: Dataset[Any]) -> tuple[list[int], str]:
    """Find the class of each example.

    Classes come from an attribute of the data set (``targets``, ``labels``, ``y``, ``samples``) or from the first
    tensor with one number for each example after the inputs of a ``TensorDataset``. The first, middle and last example
    are read to check them. If there are none, or if no element of an example is the class, each example is read. Its
    second element, or its key ``label``, is the class.
    Whole numbers as floats are classes if they are few.

    Args:
        dataset: A data set with a length.

    Returns:
        The classes, and a note where each example was read.

    Raises:
        ValueError: If examples have no class index.
    """
    size = len(cast(Sized, dataset))
    found = find_column(dataset, _NAMES)
    why = "the data set has no attribute `targets`"
    if found is not None and found.dtype.kind in "iubf":
        classes = [_index_of(each) for each in found]
        if all(each is not None for each in classes) and _are_few(found):
            read = {each: _indices_in(dataset[each]) for each in (0, size // 2, size - 1)}
            if all(not inside or classes[each] in inside for each, inside in read.items()):
                return cast(list[int], classes), ""
            why = "its attribute has other classes than the examples"
    labels = []
    for number in range(size):
        example = dataset[number]
        labels.append(label_of(example))
        if _index_of(labels[-1]) is None:
            raise _no_class(f"{type(example).__name__} for example {number}")
    if not _are_few(np.asarray(labels)):
        raise _no_class(f"more than {_FEW} different floats")
    taken = _key_of(dataset[0]) if size else 1
    element = f"element {taken + 1}" if isinstance(taken, int) else f"key {taken!r}"
    note = f"All {size} examples were read to find their classes ({element} of each): {why}."
    return [cast(int, _index_of(label)) for label in labels], note


def label_of(example: Any) -> Any:
    """The label of an example as a number or text; None if it has none, or if its label has several numbers."""
    key = _key_of(example)
    return None if key is None else _plain(example[key])


def find_column(dataset: Any, names: Sequence[str]) -> np.ndarray[Any, Any] | None:
    """Find an attribute with one value for each example, in the data set or below ``Subset`` and ``ConcatDataset``.

    Args:
        dataset: The data set.
        names: Names of the attribute, the first one that is there is taken.

    Returns:
        One value for each example, None if no attribute has them.
    """
    if isinstance(dataset, Subset):
        whole = find_column(dataset.dataset, names)
        return None if whole is None else whole[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [find_column(each, names) for each in dataset.datasets]
        return None if any(each is None for each in parts) else np.concatenate(cast(Any, parts))
    for name in names:
        value = getattr(dataset, name, None)
        if isinstance(value, Sequence | Tensor | np.ndarray) and not isinstance(value, str):
            try:
                column = np.asarray(value)
            except ValueError:  # a list of lists of several lengths
                continue
            if column.shape == (len(dataset),):
                return column
    if "targets" not in names:
        return None
    if isinstance(dataset, TensorDataset):
        labels = [each for each in dataset.tensors[1:] if each[0].numel() == 1] if len(dataset) else []
        return labels[0].flatten().numpy(force=True) if labels else None
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, Sequence) and len(samples) == len(dataset) and isinstance(samples[0], tuple):
        return np.asarray([each[-1] for each in samples])
    return None


def _key_of(example: Any) -> Any:
    """Where an example has its label: a key, or the second place; the last one if the second holds no single number."""
    if isinstance(example, Mapping):
        return next((key for key in _KEYS if key in example), None)
    if isinstance(example, Sequence) and len(example) > 1 and not isinstance(example, str):
        return 1 if _plain(example[1]) is not None else len(example) - 1
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.flatten()[0].item() if np.prod(value.shape) == 1 else None
    return value if isinstance(value, int | float | str) else None


def _index_of(value: Any) -> int | None:
    """The class that a value is: a whole number."""
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, int) else None


def _indices_in(example: Any) -> set[int]:
    """The whole numbers of an example that may be its class: those after the input."""
    if isinstance(example, Mapping):
        values = [example[key] for key in _KEYS if key in example]
    else:
        values = list(example[1:]) if isinstance(example, Sequence) else []
    return {index for index in map(_index_of, values) if index is not None}


def _are_few(labels: np.ndarray[Any, Any]) -> bool:
    """Whether labels may be classes: integers, or floats with few values."""
    return labels.dtype.kind != "f" or len(np.unique(labels)) <= _FEW


def _no_class(got: str) -> ValueError:
    return ValueError(
        f"`stratify` must be False where examples have no class index, got {got}. Set "
        "stratify=False, or return (image, class)."
    )
