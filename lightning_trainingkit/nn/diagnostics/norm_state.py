"""The state of normalisation layers: statistics, momentum and ``eps``."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_trainingkit.nn.diagnostics.layer_calls import SMALL_MOMENTUM
from lightning_trainingkit.nn.structure.names import plain_name
from lightning_trainingkit.nn.structure.tracing import NORMS

__all__ = ["NormFact", "norm_facts"]


@dataclass(frozen=True)
class NormFact:
    """The state of a normalisation layer.

    Args:
        batch: Whether it is a BatchNorm.
        images: Whether it is a BatchNorm of images or volumes that does not synchronise ranks.
        trained: Whether its own parameters are trained. None without parameters.
        statistics: Whether it keeps running statistics.
        eps: Its ``eps``.
        momentum: Its momentum. None is the plain mean over all batches, or another kind of layer.
        tracked: Batches that it has seen in training mode. This fact and the next two are read for layers in eval mode
            or with a small momentum.
        initial: Whether the running statistics are the initial ones.
        running_variance: Median over channels.
    """

    batch: bool
    images: bool
    trained: bool | None
    statistics: bool
    eps: float
    momentum: float | None
    tracked: int
    initial: bool
    running_variance: float | None


def norm_facts(module: nn.Module, trained: Collection[nn.Parameter]) -> dict[str, NormFact]:
    """Read the state of each normalisation layer by name. Waits for the device.

    Args:
        module: The trained module.
        trained: The parameters that are trained.
    """
    facts = {}
    trained = set(trained)
    for name, layer in module.named_modules():
        if not isinstance(layer, NORMS) or isinstance(layer, nn.LocalResponseNorm):
            continue
        own = list(layer.parameters(recurse=False))
        mean: Any = getattr(layer, "running_mean", None)
        var: Any = getattr(layer, "running_var", None)
        momentum, tracked = getattr(layer, "momentum", None), getattr(layer, "num_batches_tracked", None)
        statistics = read = isinstance(mean, Tensor) and isinstance(var, Tensor)
        if layer.training and (momentum is None or momentum >= SMALL_MOMENTUM):
            read = False
        facts[plain_name(name)] = NormFact(
            batch=isinstance(layer, _BatchNorm),
            images=isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d),
            trained=any(each in trained for each in own) if own else None,
            statistics=statistics,
            eps=float(layer.eps or 0),
            momentum=momentum,
            tracked=int(tracked) if read and tracked is not None else 0,
            initial=read and not mean.any() and bool((var == 1).all()),
            running_variance=float(var.float().median()) if read else None,
        )
    return facts
