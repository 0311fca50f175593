"""A model of any library inside of a LightningModule, and a fit of one step."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L
from surgery_bench.turns import Memory

__all__ = ["Net", "fit_one_step", "output_of"]


class Net(L.LightningModule):
    """A model whose outputs shall be 1, so that a head of zeros gets gradients too.

    The outputs may be a tensor, or any dict, list or tuple of tensors.

    Args:
        net: The model.
        clip: Largest norm of the gradient. None does not clip it.
    """

    def __init__(self, net: nn.Module, clip: float | None = None) -> None:
        super().__init__()
        self.net, self.clip = net, clip
        self.outputs: list[Tensor] = []  # of the last training batch

    def forward(self, *inputs: Tensor) -> Any:
        return self.net(*inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        outputs = _tensors(self(*batch))
        self.outputs = [each.detach() for each in outputs]
        return torch.stack([(each.float() - 1).square().mean() for each in outputs]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


class _Look(L.Callback):
    """Look at the module before its first batch, and at the gradients after it."""

    def __init__(self, look: Callable[[Net], object]) -> None:
        self.look = look
        self.trained = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Net, batch: Any, batch_idx: int) -> None:
        self.look(pl_module)

    def on_after_backward(self, trainer: Any, pl_module: Net) -> None:
        self.trained = sum(each.grad is not None for each in pl_module.parameters())


def fit_one_step(
    net: Net, batch: Any, callbacks: Sequence[L.Callback], look: Callable[[Net], object] = lambda net: None
) -> set[str]:
    """Train for one step, and return the names of what was logged.

    Args:
        net: The module.
        batch: The batch.
        callbacks: The callbacks under test.
        look: Called before the batch, with the module.
    """
    logger, looking = Memory(), _Look(look)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = L.Trainer(
        callbacks=[*callbacks, looking],
        max_steps=1,
        gradient_clip_val=net.clip,
        accelerator="cpu",
        devices=1,
        logger=logger,
        log_every_n_steps=1,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries' models
        trainer.fit(net, DataLoader([batch], None))
    if not looking.trained or trainer.global_step != 1:
        raise RuntimeError("A step must have been made with gradients, got none.")
    return set().union(*logger.seen)


def output_of(net: Net, batch: Any) -> list[Tensor]:
    """The tensors that a module returns in eval mode. Its mode stays."""
    modes = {each: each.training for each in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            return _tensors(net(*batch))
    finally:
        for each, training in modes.items():
            each.training = training


def _tensors(output: Any) -> list[Tensor]:
    return [each for each in tree_leaves(output) if isinstance(each, Tensor)]
