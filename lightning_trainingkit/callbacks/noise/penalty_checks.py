"""Refuse optimizers beside which a penalty would be wrong."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_trainingkit._lightning import L

__all__ = ["decayed_weights", "listed", "refuse_double_decay", "refuse_optimizer"]


def refuse_optimizer(trainer: L.Trainer, optimizer: Optimizer, *, proximal: bool) -> None:
    """Raise TypeError if an optimizer uses the loss itself, or takes off an AMP scaler's factor or steps by itself.

    Args:
        trainer: The Trainer.
        optimizer: The optimizer.
        proximal: Whether the rate of each group is needed.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "`configure_optimizers` must return an optimizer that uses gradients alone, got LBFGS, which compares "
            "losses. Add functional.penalty_value to the loss instead."
        )
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise TypeError(
            "`fused` must be False beside a gradient scaler (precision='16-mixed'), got True: gradients still have the "
            "scaler's factor. Use precision='bf16-mixed', or leave fused out."
        )
    if proximal and any(isinstance(group.get("lr"), Tensor) or "lr" not in group for group in optimizer.param_groups):
        raise TypeError(
            "`lr` must be a number in each group of the optimizer for proximal=True, got a tensor or none. "
            "Give a float, or set proximal=False."
        )


def refuse_double_decay(optimizer: Optimizer, named: Mapping[nn.Parameter, str], l2: float) -> None:
    """Raise ValueError if the optimizer's weight decay acts on weights that ``l2`` penalises.

    Args:
        optimizer: The optimizer.
        named: The penalised parameters, with their names.
        l2: Strength of the squares.
    """
    decayed = decayed_weights(optimizer, named)
    if l2 and decayed:
        raise ValueError(
            f"`l2` must be 0 where the optimizer's weight decay acts on the same weights, got {l2:g} beside "
            f"weight decay on {listed(decayed)}: their squares would be counted twice. "
            "Set weight_decay=0, or leave l2 out."
        )


def decayed_weights(optimizer: Optimizer, named: Mapping[nn.Parameter, str]) -> list[str]:
    """Names of the penalised parameters on which an optimizer's weight decay acts.

    Args:
        optimizer: The optimizer.
        named: The penalised parameters, with their names.
    """
    decaying = [group for group in optimizer.param_groups if group.get("weight_decay")]
    return [named[each] for group in decaying for each in group["params"] if each in named]


def listed(names: list[str]) -> str:
    """The first of some names, and the number of the others.

    Example:
        >>> listed(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d and 2 more'
    """
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
