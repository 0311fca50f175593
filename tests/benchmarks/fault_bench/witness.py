"""See in the run itself that a silent fault happens."""

from typing import Any
from unittest import mock

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Witness"]


class Witness(L.Callback):
    """Watch for one fault. It sees what the run does, not which fault was planted.

    Args:
        fact: ``not trained``, ``eval in training``, ``training in evaluation``, ``norm off``, ``rate fixed``,
            ``gradients kept``, ``leak``, ``probabilities``; empty to watch nothing.
    """

    def __init__(self, fact: str) -> None:
        self.fact, self.seen, self.patches = fact, False, []  # type: ignore[var-annotated]
        self.hooks: list[Any] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.fact not in ("eval in training", "training in evaluation"):
            return
        for module in pl_module.modules():
            if isinstance(module, nn.Dropout | nn.BatchNorm2d):
                self.hooks.append(module.register_forward_pre_hook(self._mode(trainer)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = {name: value.clone() for name, value in pl_module.named_parameters() if value.requires_grad}
        self.means = [each.running_mean.clone() for each in _batch_norms(pl_module)]
        self.rates = {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates |= {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups}
        if trainer.is_last_batch and trainer.current_epoch == trainer.max_epochs - 2 and self.fact == "probabilities":
            for name in ("cross_entropy", "binary_cross_entropy_with_logits"):
                self.patches.append(mock.patch.object(F, name, self._loss(getattr(F, name))))
                self.patches[-1].start()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if self.fact == "gradients kept" and trainer.global_step > 2:
            kept = [each.grad for each in pl_module.parameters() if each.grad is not None]
            self.seen |= any(bool(grad.any()) for grad in kept)

    def teardown(self, *_: Any, **__: Any) -> None:
        for patch in self.patches:
            patch.stop()
        for hook in self.hooks:
            hook.remove()

    def saw(self, module: L.LightningModule) -> bool:
        """Whether the fault happened."""
        if self.fact == "not trained":
            after = dict(module.named_parameters())
            return any(torch.equal(value, after[name]) for name, value in self.before.items())
        if self.fact == "rate fixed":
            return len(self.rates) == 1
        if self.fact == "norm off":
            return any(map(torch.equal, self.means, [each.running_mean for each in _batch_norms(module)]))
        if self.fact == "leak":
            return _leaks(module)
        return self.seen

    def _mode(self, trainer: L.Trainer) -> Any:
        def look(layer: nn.Module, _: Any) -> None:
            if trainer.sanity_checking:
                return
            if self.fact == "eval in training":
                self.seen |= trainer.training and not layer.training
            elif self.fact == "training in evaluation":
                self.seen |= trainer.validating and layer.training

        return look

    def _loss(self, right: Any) -> Any:
        def call(scores: Tensor, *args: Any, **options: Any) -> Tensor:
            self.seen |= bool(((scores >= 0) & (scores <= 1)).all())
            return right(scores, *args, **options)

        return call


def _batch_norms(module: nn.Module) -> list[Any]:
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]


@torch.no_grad()
def _leaks(module: L.LightningModule) -> bool:
    """Whether an image's scores depend on the other images, in eval mode."""
    module.eval()
    first, others = torch.randn(4, 1, 8, 8), torch.randn(12, 1, 8, 8)
    alone, mixed = module(torch.cat([first, others]))[:4], module(torch.cat([first, -others]))[:4]
    return not torch.allclose(alone, mixed, atol=1e-4)
