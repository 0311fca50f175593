"""Learning rates over the steps of a training, as shares of the highest rate."""

import math

from lightning_trainingkit.functional import _check

__all__ = ["cycle_ends", "cyclic_cosine"]


def cycle_ends(total_steps: int, cycles: int) -> list[int]:
    """Return the number of optimizer steps done at the end of each cycle, where ``cyclic_cosine`` is lowest.

    ``end_i = floor(i T / M)`` for ``i = 1 .. M``: the last cycle ends with the training, and lengths differ by at most
    one step. (The paper rounds the length up. Its last cycle is shorter if ``M`` does not divide ``T``.)

    Args:
        total_steps: Optimizer steps ``T`` of the training.
        cycles: Number of cycles ``M``, from 1 to ``total_steps``.

    Returns:
        ``M`` growing step counts. The last is ``total_steps``.

    Raises:
        ValueError: If ``cycles`` is below 1 or above ``total_steps``.
        TypeError: If ``total_steps`` or ``cycles`` is no integer.

    Example:
        >>> cycle_ends(10, 4)
        [2, 5, 7, 10]

    References:
        Huang et al., "Snapshot Ensembles: Train 1, get M for free", ICLR 2017, arXiv:1704.00109.
    """
    for name, value in {"total_steps": total_steps, "cycles": cycles}.items():
        _check.integer(name, value, "Round it.")
    if not 1 <= cycles <= total_steps:
        raise ValueError(
            f"`cycles` must be from 1 to the number of optimizer steps, {total_steps}, got {cycles}. "
            "Choose fewer cycles, or train for longer."
        )
    return [i * total_steps // cycles for i in range(1, cycles + 1)]


def cyclic_cosine(step: int, total_steps: int, cycles: int) -> float:
    """Share of the highest learning rate. In each cycle it falls from 1 to nearly 0 by half a cosine.

    ``(1 + cos(pi (t - s) / (e - s))) / 2``, where the cycle of step ``t`` has the steps ``s <= t < e``
    (``cycle_ends``). If ``M`` divides ``T``, this is the paper's equation 2. Steps after ``T`` have the share of the
    last step.

    Args:
        step: Number of optimizer steps ``t`` done, from 0.
        total_steps: Optimizer steps ``T`` of the training.
        cycles: Number of cycles ``M``, from 1 to ``total_steps``.

    Returns:
        A share in (0, 1]: 1 in the first step of each cycle, nearly 0 in its last.

    Raises:
        ValueError: If ``step`` is negative, or ``cycles`` below 1 or above ``total_steps``.
        TypeError: If ``total_steps`` or ``cycles`` are no integers.

    Example:
        >>> [round(cyclic_cosine(step, 8, 2), 2) for step in range(8)]
        [1.0, 0.85, 0.5, 0.15, 1.0, 0.85, 0.5, 0.15]

    References:
        Huang et al., "Snapshot Ensembles: Train 1, get M for free", ICLR 2017, arXiv:1704.00109.
    """
    ends = cycle_ends(total_steps, cycles)
    if step < 0:
        raise ValueError(f"`step` must not be negative, got {step}. The first step is 0.")
    step = min(step, total_steps - 1)
    i = next(i for i, end in enumerate(ends) if step < end)
    start = ends[i - 1] if i else 0
    return (1 + math.cos(math.pi * (step - start) / (ends[i] - start))) / 2
