"""The length and the progress of a learning-rate schedule."""

from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

__all__ = ["inner_schedules", "schedule_length", "schedule_position"]


def schedule_length(schedule: LRScheduler) -> int | None:
    """Number of steps until a schedule has done what it is for. None where the class has no such number.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> schedule_length(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100))
        100
    """
    if isinstance(schedule, CosineAnnealingLR):
        return int(schedule.T_max)
    if isinstance(schedule, OneCycleLR):
        return int(schedule.total_steps)
    if isinstance(schedule, LinearLR | PolynomialLR):
        return int(schedule.total_iters)
    if isinstance(schedule, SequentialLR):
        last = schedule_length(schedule._schedulers[-1]) or 0
        return int(schedule._milestones[-1]) + last
    return None


def schedule_position(schedule: object) -> int:
    """How often a schedule was stepped: the largest ``last_epoch`` of it and of the schedules inside it."""
    own = getattr(schedule, "last_epoch", 0)
    return max([own if isinstance(own, int) else 0, *map(schedule_position, inner_schedules(schedule))])


def inner_schedules(schedule: object) -> list[LRScheduler]:
    """The schedules that a schedule steps."""
    return list(schedule._schedulers) if isinstance(schedule, SequentialLR | ChainedScheduler) else []
