"""Compare what a data set returns: two examples, or one example that is read twice."""

import pickle
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_flatten

from lightning_trainingkit._lightning import isolate_rng

__all__ = ["changes", "same"]

_READS = 32  # examples that are read twice to see a random transform


def changes(dataset: Any) -> bool:
    """Whether examples change when they are read again. The random states stay."""
    size = len(dataset)
    with isolate_rng():
        numbers = sorted({each * size // _READS for each in range(_READS)}) if size else []
        return any(not same(dataset[number], dataset[number]) for number in numbers)


def same(one: Any, other: Any) -> bool:
    """Whether two examples, or two values, have the same structure and the same content. NaN equals NaN."""
    mine, form = tree_flatten(one)
    others, other_form = tree_flatten(other)
    return form == other_form and all(map(_same_leaf, mine, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            one, other = one.to_dense(), other.to_dense()
            alike = one.shape == other.shape and one.dtype == other.dtype
            return alike and bool(((one == other) | ((one != one) & (other != other))).all())
        a, b = np.asarray(one), np.asarray(other)
        if a.dtype.kind == b.dtype.kind != "O":
            return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
        return type(one) is type(other) and pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # an object that cannot be pickled
        return False
