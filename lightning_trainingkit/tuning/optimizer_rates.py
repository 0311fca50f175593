"""The learning rates of all parameter groups of all optimizers, scaled together."""

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["OptimizerRates"]


class OptimizerRates:
    """The rates of a module's optimizers. Groups and optimizers keep their proportions.

    A schedule may have changed ``lr`` already. The rate of a group is then its ``initial_lr``, from which schedules
    decay, or its ``max_lr``, to which OneCycleLR grows.

    Args:
        optimizers: The optimizers.

    Attributes:
        names: Name of each group, as Lightning's LearningRateMonitor gives it: ``SGD``, ``SGD/pg1``, ``Adam-1``.

    Raises:
        ValueError: If there is no optimizer with a positive rate.

    Example:
        >>> body, head = torch.zeros(1), torch.zeros(1)
        >>> optimizer = torch.optim.SGD([{"params": [body], "lr": 0.01}, {"params": [head]}], lr=0.1)
        >>> OptimizerRates([optimizer]).at(1.0)
        {'SGD/pg1': 0.1, 'SGD/pg2': 1.0}
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.names = _names(optimizers)
        self._rates = [float(group.get("max_lr", group.get("initial_lr", group["lr"])) or 0) for group in self._groups]
        if max(self._rates, default=0.0) <= 0:
            raise ValueError(
                f"`configure_optimizers` must give a positive learning rate, got {self._rates or 'no optimizer'}. "
                "Give each optimizer a rate: their proportions are kept."
            )

    @property
    def largest(self) -> float:
        """The largest rate of a group. It stands for all."""
        return max(self._rates)

    def at(self, rate: float) -> dict[str, float]:
        """Return the rate of each group, by name, if the largest one is ``rate``."""
        return {name: _rounded(each * rate / self.largest) for name, each in zip(self.names, self._rates, strict=True)}

    def set(self, rate: float) -> None:
        """Set the largest rate to ``rate``, and the others in proportion."""
        for group, each in zip(self._groups, self._rates, strict=True):
            _set(group, "lr", each * rate / self.largest)

    def limit_decay(self, most: float) -> bool:
        """Lower the weight decay of each group to at most ``most``. Return whether one was above."""
        strong = [group for group in self._groups if group.get("weight_decay", 0) > most]
        for group in strong:
            group["weight_decay"] = most
        return bool(strong)

    def scale(self, rate: float, schedulers: Sequence[Any]) -> None:
        """Scale the rates and their schedules so that the largest rate is ``rate``.

        Args:
            rate: The new rate, in the place of ``largest``.
            schedulers: The schedules, at their beginning. Their bases are scaled.

        Raises:
            ValueError: If one is a CyclicLR, which alone knows its largest rates.
        """
        schedulers = _flat(schedulers)
        if any(hasattr(each, "max_lrs") for each in schedulers):
            raise ValueError("`lr_scheduler` must follow the optimizer's rates, got CyclicLR. Use OneCycleLR.")
        factor = rate / self.largest
        for group in self._groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    _set(group, name, float(group[name]) * factor)
        for scheduler in schedulers:
            for name in ("base_lrs", "_last_lr"):
                if isinstance(getattr(scheduler, name, None), list):
                    setattr(scheduler, name, [each * factor for each in getattr(scheduler, name)])


def _names(optimizers: Sequence[torch.optim.Optimizer]) -> list[str]:
    kinds = [type(optimizer).__name__ for optimizer in optimizers]
    names = []
    for place, (kind, optimizer) in enumerate(zip(kinds, optimizers, strict=True)):
        earlier = kinds[:place].count(kind)
        name = f"{kind}-{earlier}" if earlier else kind
        groups = optimizer.param_groups
        parts = [str(group.get("name", f"pg{number}")) for number, group in enumerate(groups, 1)]
        names += [name] if len(groups) == 1 else [f"{name}/{part}" for part in parts]
    return names


def _flat(schedulers: Sequence[Any]) -> list[Any]:
    """The schedules, and the schedules inside of SequentialLR and ChainedScheduler."""
    inner = [_flat(getattr(each, "_schedulers", [])) for each in schedulers]
    return [*schedulers, *(each for part in inner for each in part)]


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if isinstance(group[name], torch.Tensor):  # a fused or capturable optimizer
        group[name].fill_(value)
    else:
        group[name] = value


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
