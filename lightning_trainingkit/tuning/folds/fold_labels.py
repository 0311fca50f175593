"""Find the class of each example of a data set, if possible without loading an image."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

__all__ = ["find_column", "find_labels"]

_NAMES = ("targets", "labels", "y")
_KEYS = ("label", "labels", "target", "targets", "y", "class")


def find_labels(dataset: Dataset[Any]) -> tuple[list[int], str]:
    """Find the class of each example.

    Classes come from an attribute of the data set (``targets``, ``labels``, ``y``, ``samples``) or from the last tensor
    of a ``TensorDataset``. The first, middle and last example are read to check them. If there are none, or if they
    differ, each example is read.

    Args:
        dataset: A data set with a length.

    Returns:
        The classes, and a note where each example was read.

    Raises:
        ValueError: If examples have no class index.
    """
    size = len(cast(Sized, dataset))
    found = find_column(dataset, _NAMES)
    if found is not None and found.dtype.kind in "iub":
        classes = [int(each) for each in found]
        read = {each: _class_of(dataset[each]) for each in (0, size // 2, size - 1)}
        if all(label in (None, classes[each]) for each, label in read.items()):
            return classes, ""
    note = f"All {size} examples were read to find their classes: the data set has no attribute `targets`."
    classes = []
    for number in range(size):
        example = dataset[number]
        label = _class_of(example)
        if label is None:
            raise ValueError(
                f"`stratify` must be False where examples have no class index, got {type(example).__name__} for "
                f"example {number}. Set stratify=False, or return (image, class)."
            )
        classes.append(label)
    return classes, note


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
    if isinstance(dataset, TensorDataset) and dataset.tensors[-1].ndim == 1:
        return dataset.tensors[-1].numpy(force=True)
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, Sequence) and len(samples) == len(dataset) and isinstance(samples[0], tuple):
        return np.asarray([each[-1] for each in samples])
    return None


def _class_of(example: Any) -> int | None:
    label: Any = None
    if isinstance(example, Mapping):
        label = next((example[key] for key in _KEYS if key in example), None)
    elif isinstance(example, Sequence) and len(example) > 1 and not isinstance(example, str):
        label = example[-1]
    if isinstance(label, Tensor | np.ndarray | np.generic):
        label = torch.as_tensor(label)
        label = label.item() if label.numel() == 1 and not label.is_floating_point() else None
    return int(label) if isinstance(label, int) else None
