"""Equal weights, metrics and statistics on all ranks of a distributed run."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_trainingkit._lightning import L

__all__ = ["broadcast_module", "mean_over_ranks", "reducer"]


@torch.no_grad()
def broadcast_module(trainer: L.Trainer, pl_module: L.LightningModule) -> None:
    """Copy the parameters and buffers of rank 0 to all ranks, as bytes, since gloo does not know every dtype."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    for tensor in chain(pl_module.parameters(), pl_module.buffers()):
        if is_lazy(tensor) or tensor.is_meta or hasattr(tensor, "full_tensor"):  # DTensors have `full_tensor`
            continue
        sent = tensor.to(trainer.strategy.root_device).contiguous().clone()  # NCCL needs tensors on its device
        torch.distributed.broadcast(sent.view(-1).view(torch.uint8), src=0)
        tensor.copy_(sent)


def mean_over_ranks(trainer: L.Trainer, value: Tensor) -> Tensor:
    """Return the mean of ``value`` over ranks, equal on all ranks. A synchronised value does not change."""
    if trainer.world_size == 1:
        return value
    mean = trainer.strategy.reduce(value.double(), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean.to(value.dtype if value.is_floating_point() else torch.float32)


def reducer(trainer: L.Trainer) -> Callable[[Tensor, str], None] | None:
    """Make the function that reduces a tensor over ranks in place, by sum, min or max. With one rank it is None."""
    if trainer.world_size == 1 or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None

    def reduce(tensor: Tensor, op: str) -> None:
        sent = tensor.to(trainer.strategy.root_device).contiguous()  # NCCL needs tensors on its device
        torch.distributed.all_reduce(sent, getattr(torch.distributed.ReduceOp, op.upper()))
        tensor.copy_(sent)

    return reduce
