"""Phases of transfer learning: the trainable layers, the start and the learning rates of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

from lightning_trainingkit.functional import _check

__all__ = ["PRESETS", "Phase", "last_blocks", "layer_factor", "read_phases", "warmup_factor"]

PRESETS: dict[str, list[dict[str, Any]]] = {
    "small_data": [{"train": "head"}],
    "more_data": [{"train": "head"}, {"train": "last 2", "start": 0.25, "lr_scale": 0.1}],
}
_KEYS = ("train", "start", "patience", "lr_scale")
_SELECTORS = "'all', 'head', 'last 2' (the head and the two blocks before it) or name patterns such as 'net.layer4'"


@dataclass(frozen=True)
class Phase:
    """The trainable layers of one phase, its start and its learning rates.

    Args:
        train: ``all``, ``head``, ``last n`` (the head and the ``n`` blocks before it) or name patterns.
        start: First epoch if an integer, share of the training if a number below 1, None if ``patience`` decides.
        patience: Number of checks without improvement in the phase before, after which this phase starts.
        lr_scale: Factor on the learning rate, for all layers or by selector.
    """

    train: tuple[str, ...]
    start: int | float | None = None
    patience: int | None = None
    lr_scale: float | dict[str, float] = 1.0

    @property
    def plain(self) -> dict[str, Any]:
        """The phase as plain data, for a checkpoint."""
        return asdict(self) | {"train": list(self.train)}

    @property
    def when(self) -> str:
        """The start, in words."""
        if self.patience is not None:
            return f"after {self.patience} check{'s' * (self.patience != 1)} without improvement"
        if isinstance(self.start, float):
            return f"{self.start:.4g} of training"
        return f"epoch {self.start}" if self.start else "at once"


def read_phases(phases: Any) -> list[Phase]:
    """Read a preset's name, or a list of dicts with ``train`` and, from the second on, ``start`` or ``patience``.

    Args:
        phases: Phases as ``TransferLearning`` takes them.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a name or a number is out of range, or a phase does not start after the phase before.

    Example:
        >>> read_phases("small_data")
        [Phase(train=('head',), start=None, patience=None, lr_scale=1.0)]
        >>> [phase.when for phase in read_phases([{"train": "head"}, {"train": "all", "start": 3}])]
        ['at once', 'epoch 3']
    """
    if isinstance(phases, str):
        if phases not in PRESETS:
            raise ValueError(
                f"`phases` must be {' or '.join(map(repr, PRESETS))}, or a list of phases, got {phases!r}. "
                "Write [{'train': 'head'}, {'train': 'all', 'start': 3}], say."
            )
        phases = PRESETS[phases]
    if not isinstance(phases, Sequence) or not all(isinstance(phase, Mapping) for phase in phases):
        raise TypeError(f"`phases` must be the name of a preset or a list of dicts, got {phases!r}. Write a list.")
    if not phases:
        raise ValueError("`phases` must hold at least one phase, got []. Leave the callback out to train everything.")
    found = [_read(number, phase) for number, phase in enumerate(phases)]
    for kind in (int, float):
        starts = [phase.start for phase in found[1:] if isinstance(phase.start, kind)]
        if any(one >= after for one, after in pairwise(starts)):
            raise ValueError(f"`phases` must start one after the other, got {starts}. Put them in order.")
    return found


def _read(number: int, given: Mapping[str, Any]) -> Phase:
    name = f"phases[{number}]"
    unknown = [key for key in given if key not in _KEYS]
    if unknown or "train" not in given:
        raise ValueError(
            f"`{name}` must have `train`, and no keys but {', '.join(_KEYS)}, got {list(given)}. Write these names."
        )
    train = [given["train"]] if isinstance(given["train"], str) else given["train"]
    if not isinstance(train, Sequence) or not all(isinstance(each, str) for each in train):
        raise TypeError(f"`{name}['train']` must be a string or a list of them, got {train!r}. Use {_SELECTORS}.")
    if not train or not all(each.strip() for each in train):
        raise ValueError(f"`{name}['train']` must name something, got {train!r}. Use {_SELECTORS}.")
    train = [each.strip() for each in train]
    for each in train:
        last_blocks(each)
    start, patience = _read_start(name, given.get("start"), given.get("patience"), first=number == 0)
    return Phase(tuple(train), start, patience, _read_scale(f"{name}['lr_scale']", given.get("lr_scale", 1.0)))


def _read_start(name: str, start: Any, patience: Any, *, first: bool) -> tuple[int | float | None, int | None]:
    if start is not None:
        given = _check.number(f"{name}['start']", start, "Give an epoch or a share of the training, or leave it out.")
        start = int(start) if isinstance(start, Integral) else given
    if patience is not None:
        patience = _check.integer(f"{name}['patience']", patience, "It counts checks.", least=1)
    if first:
        if start not in (None, 0) or patience is not None:
            raise ValueError(
                f"`{name}` must start at once, got start={start}, patience={patience}. "
                "Give the phase before it, if there is one: {'train': 'head'}, say."
            )
        return None, None
    if (start is None) == (patience is None):
        raise ValueError(
            f"`{name}` must have either `start` or `patience`, got start={start}, patience={patience}. "
            "Give an epoch (3), a share of the training (0.25), or the checks without improvement to wait for."
        )
    if isinstance(start, float):
        _check.share(f"{name}['start']", start, "Write an integer for an epoch.")
    elif start is not None:
        _check.integer(f"{name}['start']", start, "The first phase has epoch 0.", least=1)
    return start, patience


def _read_scale(name: str, scale: Any) -> float | dict[str, float]:
    given = scale if isinstance(scale, Mapping) else {"all": scale}
    for key, value in given.items():
        if not isinstance(key, str):
            raise TypeError(f"`{name}` must be a number, or a dict of name patterns to numbers, got {scale!r}.")
        _check.number(
            name, value, "Give a number or a dict of them. To freeze a part, leave it out of `train`.", above=0
        )
    return {key: float(value) for key, value in given.items()} if isinstance(scale, Mapping) else float(scale)


def last_blocks(selector: str) -> int | None:
    """Number of blocks in ``last n``, None for another selector.

    Raises:
        ValueError: If the number is 0.
    """
    found = re.fullmatch(r"last\s+(\d+)", selector)
    if found and int(found[1]) < 1:
        raise ValueError(f"`train` must name at least one block, got {selector!r}. The last layer alone is 'head'.")
    return int(found[1]) if found else None


def layer_factor(block: int, blocks: int, lr_decay: float) -> float:
    """Factor on the learning rate of a block: ``lr_decay ** depth``, depth 0 at the head and 1 at the stem.

    Args:
        block: Number of the block, 0 at the stem.
        blocks: Number of all blocks.
        lr_decay: Learning rate of the stem over the learning rate of the head.

    Example:
        >>> [round(layer_factor(block, 3, 0.25), 3) for block in range(3)]
        [0.25, 0.5, 1.0]

    References:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, arXiv:1801.06146.
    """
    depth = (blocks - 1 - block) / (blocks - 1) if blocks > 1 else 0.0
    return float(lr_decay**depth)


def warmup_factor(steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate after ``steps`` steps. It rises linearly and is 1 from ``warmup_steps`` on.

    Args:
        steps: Number of optimizer steps done.
        warmup_steps: Length of the warm-up in optimizer steps; 0 means no warm-up.

    Example:
        >>> [warmup_factor(steps, 3) for steps in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (steps + 1) / (warmup_steps + 1))
