"""The strength of a noise over the training."""

from typing import Any, Literal

from lightning_trainingkit.functional import _check

__all__ = ["Schedule", "check_schedule", "scheduled_rate"]

Schedule = Literal["constant", "rise", "fall"]
_HINT = "'rise' starts without noise, 'fall' ends without it."


def check_schedule(schedule: Any, until: Any) -> float:
    """Check a schedule, and return ``until`` as Python's float.

    Raises:
        TypeError: If ``until`` is no number.
        ValueError: If the schedule is unknown, or ``until`` is not in (0, 1].
    """
    _check.one_of("schedule", schedule, ("constant", "rise", "fall"), _HINT)
    return _check.number("until", until, "It is a share of the training, 1 for all of it.", above=0, most=1)


def scheduled_rate(rate: float, share: float, schedule: Schedule = "constant", until: float = 1.0) -> float:
    """Rate of a noise after a share of the training.

    - **constant**: the rate until ``until``, then 0.
    - **rise**: from 0, linearly, to the rate at ``until``. It stays there.
    - **fall**: from the rate, linearly, to 0 at ``until``. It stays there.

    Args:
        rate: The full rate.
        share: Share of the training that lies behind, from 0 to 1.
        schedule: ``constant``, ``rise`` or ``fall``.
        until: Share of the training at which the schedule ends, in (0, 1].

    Returns:
        A rate from 0 to ``rate``.

    Example:
        >>> [scheduled_rate(0.4, share, "rise", until=0.5) for share in (0, 0.25, 0.5, 1)]
        [0.0, 0.2, 0.4, 0.4]

    References:
        Morerio et al., "Curriculum Dropout", ICCV 2017, arXiv:1703.06229 (a rise).
        Liu et al., "Dropout Reduces Underfitting", ICML 2023, arXiv:2303.01500 (a fall: early dropout).
    """
    done = min(share / until, 1.0)
    if schedule == "rise":
        return rate * done
    if schedule == "fall":
        return rate * (1 - done)
    return rate if share < until or until == 1 else 0.0
