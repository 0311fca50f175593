"""Which examples each fold of a cross-validation holds out."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_trainingkit.functional import _check

__all__ = ["Folds", "make_folds"]


class Folds:
    """Divides a train set K times, once or repeatedly. Fold ``k`` is held out while the other folds are trained on.

    Folds are numbered through: with K = 5, the folds 5 to 9 are those of the second repeat.

    Args:
        held_out: For each repeat and example the fold ``0 .. K - 1`` that holds the example out, ``(repeats, N)``.

    Attributes:
        folds: Folds of one repeat, K.
        repeats: Number of repeats.
        examples: Number of examples.
    """

    def __init__(self, held_out: np.ndarray[Any, Any]) -> None:
        self.held_out = held_out.astype(np.int16)
        self.repeats, self.examples = int(held_out.shape[0]), int(held_out.shape[1])
        self.folds = int(held_out.max()) + 1

    def __len__(self) -> int:
        return len(self.held_out) * self.folds

    def train(self, number: int) -> list[int]:
        """Indices of the examples that fold ``number`` trains on, ascending."""
        return [int(each) for each in np.flatnonzero(self._of(number) != number % self.folds)]

    def validation(self, number: int) -> list[int]:
        """Indices of the examples that fold ``number`` holds out, ascending."""
        return [int(each) for each in np.flatnonzero(self._of(number) == number % self.folds)]

    @property
    def version(self) -> str:
        """A short hash of the division."""
        return hashlib.sha1(repr(self.held_out.shape).encode() + self.held_out.tobytes()).hexdigest()[:12]

    def _of(self, number: int) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = self.held_out[number // self.folds]
        return rows


def make_folds(
    examples: int,
    folds: int,
    repeats: int = 1,
    *,
    labels: Sequence[int] | None = None,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Folds:
    """Divide examples into folds at random, by scikit-learn.

    - **Labels**: each fold has each class in the same proportion, as far as the groups allow.
    - **Groups**: examples of one group are in one fold.

    Args:
        examples: Number of examples.
        folds: Number of folds, K.
        repeats: How often the examples are divided.
        labels: Class index of each example. None does not stratify.
        groups: Group of each example, such as a patient.
        seed: Fixes the division.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If there are fewer examples, groups, or examples of a class than folds; or if the groups leave a
            class out of a training part.

    Example:
        >>> folds = make_folds(6, 3, labels=[0, 0, 0, 1, 1, 1])
        >>> sorted(folds.train(0) + folds.validation(0)), len(folds.validation(0))
        ([0, 1, 2, 3, 4, 5], 2)
    """
    try:
        from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold
    except ImportError as error:
        raise ImportError(f"Folds need scikit-learn: {error}. Run: pip install 'lightning-trainingkit[tuning]'.") from (
            error
        )
    _check.integer("folds", folds, "5 or 10 is usual.", least=2)
    _check.integer("repeats", repeats, "1 divides the examples once.", least=1)
    if folds > examples:
        raise ValueError(f"`folds` must be at most the number of examples, {examples}, got {folds}. Take fewer folds.")
    classes = None if labels is None else _classes(labels, examples, folds)
    members = None if groups is None else _groups(groups, examples, folds)
    found = np.empty((repeats, examples), dtype=np.int16)
    for repeat in range(repeats):
        options = {
            "n_splits": folds,
            "shuffle": True,
            "random_state": int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]),
        }
        if members is not None:  # without labels all have one class, which balances the number of examples
            splits = StratifiedGroupKFold(**options).split(
                members, np.zeros(examples) if classes is None else classes, members
            )
        elif classes is not None:
            splits = StratifiedKFold(**options).split(classes, classes)
        else:
            splits = KFold(**options).split(np.zeros(examples))
        for number, (_, validation) in enumerate(splits):
            found[repeat, validation] = number
        _check_parts(found[repeat], folds, classes)
    return Folds(found)


def _classes(labels: Sequence[int], examples: int, folds: int) -> np.ndarray[Any, Any]:
    found = np.asarray(labels)
    if found.shape != (examples,):
        raise ValueError(
            f"`labels` must be one class for each of {examples} examples, got shape {found.shape}. Set stratify=False."
        )
    names, counts = np.unique(found, return_counts=True)
    if counts.min() < folds:
        raise ValueError(
            f"`folds` must be at most the size of the rarest class, got {folds}: class {names[counts.argmin()]} has "
            f"{counts.min()} of {examples} examples. Take fewer folds, or set stratify=False."
        )
    return found


def _groups(groups: Sequence[Any], examples: int, folds: int) -> np.ndarray[Any, Any]:
    found = np.asarray(groups)
    if found.shape != (examples,):
        raise ValueError(
            f"`groups` must be one group for each of {examples} examples, got shape {found.shape}. Give a list."
        )
    names, numbers = np.unique(found, return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"`folds` must be at most the number of groups, {len(names)}, got {folds}. Take fewer folds.")
    return numbers


def _check_parts(held_out: np.ndarray[Any, Any], folds: int, classes: np.ndarray[Any, Any] | None) -> None:
    """Refuse groups that leave a fold empty, or a class out of a training part. No other division does."""
    for number in range(folds):
        inside = held_out == number
        if not inside.any():
            raise ValueError(f"`groups` must fill {folds} folds, got a fold without examples. Take fewer folds.")
        if classes is not None:
            missing = sorted(set(classes.tolist()) - set(classes[~inside].tolist()))
            if missing:
                raise ValueError(
                    f"`groups` must leave each class in each training part, got class {missing[0]}, whose examples are "
                    "all in one fold. Take other groups, or set stratify=False."
                )
