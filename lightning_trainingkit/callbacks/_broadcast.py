"""What makes the ranks of a distributed run agree."""

from itertools import chain

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_trainingkit._lightning import L

__all__ = ["broadcast_module", "mean_over_ranks"]


@torch.no_grad()
def broadcast_module(trainer: L.Trainer, pl_module: L.LightningModule) -> None:
    """Give all ranks the parameters and buffers of rank 0, as bytes: gloo does not know every dtype."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    for tensor in chain(pl_module.parameters(), pl_module.buffers()):
        if is_lazy(tensor) or tensor.is_meta or hasattr(tensor, "full_tensor"):  # the last is a DTensor's
            continue
        sent = tensor.to(trainer.strategy.root_device).contiguous().clone()  # NCCL needs tensors on its device
        torch.distributed.broadcast(sent.view(-1).view(torch.uint8), src=0)
        tensor.copy_(sent)


def mean_over_ranks(trainer: L.Trainer, value: Tensor) -> Tensor:
    """The mean of ``value`` over ranks: the value itself where it was synchronised, one for all where it was not."""
    if trainer.world_size == 1:
        return value
    mean = trainer.strategy.reduce(value.double(), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean.to(value.dtype if value.is_floating_point() else torch.float32)
