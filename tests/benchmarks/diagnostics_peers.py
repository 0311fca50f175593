"""Other ways to look inside, for the benchmark of the diagnostics: a number at a time, and W&B's own."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn


class ComposersWay(L.Callback):
    """The numbers of ActivationStats and GradientStats, in full, each read by `.item()` as Composer's monitors do.

    Args:
        layers: Names of the layers whose outputs are looked at.
        bins: Number of bins of the histograms.
    """

    def __init__(self, layers: list[str], bins: int = 64) -> None:
        self.layers, self.bins = layers, bins
        self.metrics: dict[str, Any] = {}
        self._handles: list[Any] = []

    def switched(self, on: bool, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = [
            pl_module.get_submodule(name).register_forward_hook(self._activations(name)) for name in self.layers if on
        ]

    def _activations(self, name: str):
        def hook(layer: nn.Module, args: Any, output: Tensor) -> None:
            x = output.detach()
            units = x.flatten(2).amax(2) if x.dim() > 2 else x
            self.metrics |= {
                f"activations/{name}/mean": x.mean().item(),
                f"activations/{name}/std": x.std().item(),
                f"activations/{name}/min": x.min().item(),
                f"activations/{name}/max": x.max().item(),
                f"activations/{name}/positive": (x > 0).float().mean().item(),
                f"activations/{name}/dead": (units == 0).all(0).float().mean().item(),
                f"activations/{name}/between_images": x.std(0).square().mean().sqrt().item(),
                f"activations/{name}/histogram": torch.histc(x, self.bins).tolist(),
            }

        return hook

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before = {}
        for name, parameter in pl_module.named_parameters():
            gradient = parameter.grad
            self.before[name] = parameter.detach().clone()
            self.metrics[f"gradients/{name}/norm"] = torch.linalg.vector_norm(gradient).item()
            self.metrics[f"gradients/{name}/zeros"] = (gradient == 0).float().mean().item()
            if gradient.dim() > 1:
                agreement = gradient.sign().flatten(1).mean(1).abs().mean().item()
                self.metrics[f"gradients/{name}/sign_agreement"] = agreement

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, parameter in pl_module.named_parameters():
            update, gradient = self.before[name] - parameter.detach(), parameter.grad
            length, whole = (torch.linalg.vector_norm(each).item() for each in (update, self.before[name]))
            self.metrics[f"gradients/{name}/update_ratio"] = length / whole if whole else 0.0  # new biases are zero
            cosine = torch.nn.functional.cosine_similarity(update.flatten(), gradient.flatten(), dim=0).item()
            self.metrics[f"gradients/{name}/descent"] = cosine
        numbers = {name: value for name, value in self.metrics.items() if not isinstance(value, list)}
        trainer.logger.log_metrics(numbers, step=trainer.global_step)


class WandbWatch(L.Callback):
    """`wandb.watch(log="all")` at every step."""

    def switched(self, on: bool, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if on:
            trainer.logger.experiment.watch(pl_module, log="all", log_freq=1)
        else:
            trainer.logger.experiment.unwatch(pl_module)
