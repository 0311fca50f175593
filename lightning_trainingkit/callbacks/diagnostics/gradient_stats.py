"""Log the gradients of each layer, and the real size of its updates."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from lightning_trainingkit._lightning import (
    L,
    is_overridden,
    refuse_other_package,
)
from lightning_trainingkit.callbacks._lightning import is_sharded
from lightning_trainingkit.callbacks.diagnostics.optimizer_gradients import OptimizerGradients, layer_of, scalars
from lightning_trainingkit.callbacks.diagnostics.optimizer_watch import OptimizerWatch
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.gradient_statistics import GradientSummary, combine
from lightning_trainingkit.nn.structure.parameter_patterns import match, no_match, parameter_names

__all__ = ["GradientStats"]


class GradientStats(L.Callback):
    """Log the gradients and the real updates of each layer, at the first step and every n-th step after it.

    Each layer has ``gradients/LAYER/...``, and the whole model ``gradients/...``:

    - ``norm``, and ``clipped_norm`` where the Trainer or the module may clip.
    - ``update_ratio``: norm of the parameters' change, divided by their norm. About 1e-3 is healthy.
    - ``zeros``: share of the gradient that is exactly zero.
    - ``sign_agreement``: for a unit, ``|mean of sign(dL/dw)|`` over its incoming weights. 1 is the lecture's zig-zag.
    - ``descent``: cosine between the update and minus the gradient, of the whole model alone.

    Norms of gradients are exact, other numbers come from about 65,536 elements of each parameter. Each optimizer counts
    its own steps. A step that an AMP scaler skips is not logged. The training does not change. ``summaries`` holds the
    last values by layer, also without a logger.

    Args:
        layers: Pattern of ``fnmatch`` over the names of layers, or a list of patterns. All layers by default.
        every_n_steps: Number of an optimizer's steps from one sample to the next, at least 1.

    Raises:
        ValueError: If a pattern matches no layer with parameters. If nothing is trainable. If the strategy shards the
            model. If ``every_n_steps`` is below 1.
        TypeError: If an optimizer computes several gradients a step, as LBFGS does.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[GradientStats(every_n_steps=10)], logger=False)
    """

    def __init__(self, layers: str | Iterable[str] | None = None, every_n_steps: int = 50) -> None:
        if not isinstance(layers, str | Iterable | None):
            raise TypeError(f"`layers` must be a pattern or a list of patterns, got {layers!r}. Write ['net.*'], say.")
        self._patterns = ["*"] if layers is None else [layers] if isinstance(layers, str) else list(layers)
        if not self._patterns or not all(isinstance(each, str) and each for each in self._patterns):
            raise ValueError(f"`layers` must hold patterns, got {layers!r}. Leave it out for all layers.")
        self.layers = layers if layers is None or isinstance(layers, str) else self._patterns
        self.every_n_steps = _check.integer("every_n_steps", every_n_steps, "Try 50.", least=1)
        self.summaries: dict[str, GradientSummary] = {}
        self._steps: list[int] = []
        self._watches: list[tuple[OptimizerWatch, OptimizerGradients]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the Trainer."""
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        if is_sharded(trainer):
            raise ValueError(
                f"`strategy` must keep the whole model on every rank, got {type(trainer.strategy).__name__}. "
                "Use ddp, or leave GradientStats out."
            )
        self._remove()
        self.summaries, self._steps = {}, []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the layers and the optimizers, which all exist now."""
        layers = list(dict.fromkeys(map(layer_of, parameter_names(pl_module))))
        for pattern in self._patterns:
            if not any(_matches(pattern, layer) for layer in layers):
                raise no_match("layers", "match a layer with parameters", pattern, layers)
        for optimizer in trainer.optimizers:
            if not isinstance(optimizer, Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
                raise TypeError(
                    "`configure_optimizers` must return optimizers of torch.optim that need one gradient a step, got "
                    f"{type(optimizer).__name__}. Leave GradientStats out."
                )
        held = [
            each for optimizer in trainer.optimizers for group in optimizer.param_groups for each in group["params"]
        ]
        if not any(parameter.requires_grad for parameter in held):
            raise ValueError(
                "`configure_optimizers` must return an optimizer with a trainable parameter, got "
                f"{len(held)} parameters without requires_grad. Leave GradientStats out where nothing is trained."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Follow each optimizer."""
        self._remove()
        clips = is_overridden("on_before_optimizer_step", pl_module) or (
            pl_module.automatic_optimization
            and (bool(trainer.gradient_clip_val) or is_overridden("configure_gradient_clipping", pl_module))
        )
        for number, optimizer in enumerate(trainer.optimizers):
            earlier, scale = trainer.optimizers[:number], partial(_scale, trainer, optimizer)
            gradients = OptimizerGradients(pl_module, optimizer, earlier, self._wants, clips, scale)
            done = self._steps[number] if number < len(self._steps) else 0
            self._watches.append((OptimizerWatch(optimizer, gradients, self.every_n_steps, done), gradients))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Record the gradients before clipping."""
        for watch, _ in self._watches:
            if watch.optimizer is optimizer:
                watch.gradients_ready()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the steps that were sampled in this batch."""
        metrics: dict[str, float] = {}
        for number, (watch, gradients) in enumerate(self._watches):
            watch.batch_ended()
            layers = gradients.take()
            whole = combine(layers.values())
            if not layers or (_scaler(trainer) is not None and not whole.finite):
                continue  # a fused optimizer has skipped the step itself
            self.summaries = self.summaries | layers
            prefix = "gradients" if len(self._watches) == 1 else f"gradients/optimizer_{number}"
            for layer, summary in {
                prefix: whole,
                **{f"gradients/{name}": each for name, each in layers.items()},
            }.items():
                metrics |= {f"{layer}/{name}": value for name, value in scalars(summary).items()}
            if whole.descent is not None:
                metrics[f"{prefix}/descent"] = whole.descent
        if metrics:
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the optimizers as they were."""
        self._remove()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the optimizers as they were."""
        self._remove()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the optimizers as they were."""
        self._remove()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps of each optimizer."""
        return {"steps": [watch.steps for watch, _ in self._watches] or self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the checkpoint was saved."""
        self._steps = list(state_dict["steps"])

    def _remove(self) -> None:
        self._steps = self.state_dict()["steps"]
        for watch, _ in self._watches:
            watch.remove()
        self._watches = []

    def _wants(self, layer: str) -> bool:
        return any(_matches(pattern, layer) for pattern in self._patterns)


def _matches(pattern: str, layer: str) -> bool:
    """Whether a pattern matches the name of a layer, or of a module around it."""
    parts = layer.split(".")
    return bool(match(pattern, [".".join(parts[:end]) for end in range(1, len(parts) + 1)]))


def _scaler(trainer: L.Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)


def _scale(trainer: L.Trainer, optimizer: Optimizer) -> float:
    """Factor that the gradients hold until the step: fused optimizers take off an AMP scaler's factor themselves."""
    scaler = _scaler(trainer)
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaler is not None and fused else 1.0
