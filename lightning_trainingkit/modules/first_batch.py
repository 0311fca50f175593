"""Checks of the first batch of a stage. Later batches are not checked, which would cost a synchronisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["check_target", "first_forward", "unpack"]


def unpack(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the images and the targets of a batch."""
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        found = f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else type(batch).__name__
        raise TypeError(f"`batch` must be a pair of images and targets, got {found}. Return [x, y] from the dataset.")
    return batch[0], batch[1]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def check_target(target: Any, num_classes: int) -> None:
    """Raise unless the targets are class indices ``(N,)`` in range or probabilities ``(N, num_classes)``."""
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` must be a tensor, got {type(target).__name__}. Return integers from the dataset.")
    if target.is_floating_point() and target.ndim == 2:
        if target.shape[1] != num_classes:
            rule = f"probabilities of shape (N, {num_classes})"
            raise ValueError(f"`target` must be {rule}, got {tuple(target.shape)}. Set num_classes={target.shape[1]}?")
        return
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"`target` must be integer class indices, got {target.dtype}. Convert the labels with .long().")
    if target.ndim != 1:
        raise ValueError(f"`target` must have shape (N,), got {tuple(target.shape)}. One class index per image.")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"`target` must be in 0 .. {num_classes - 1} (num_classes={num_classes}), got labels from {low} to {high}. "
            "Number the classes from 0, or set num_classes."
        )


def first_forward(forward: Callable[[Tensor], Any], model: nn.Module, x: Any, num_classes: int) -> Tensor:
    """Run the forward once. Raise an explained error for unsuited images or outputs."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"`x` must be a tensor of floats, got {found}. Convert the images, e.g. with v2.ToDtype(scale=True)."
        )
    try:
        logits = forward(x)
    except (RuntimeError, AssertionError) as error:  # AssertionError: timm's and torchvision's transformers
        if type(error) not in (RuntimeError, AssertionError):  # out of memory, compiler: not about shapes
            raise
        raise ValueError(
            f"`x` must be images that the model can take, got a batch of shape {tuple(x.shape)}: {error}. "
            f"{_first_layer(model)} Check the image size and channels."
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (len(x), num_classes):
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"`model` must return logits of shape (N, num_classes) = {(len(x), num_classes)}, got {returned}. "
            "Change the last layer or num_classes."
        )
    return logits


def _first_layer(model: nn.Module) -> str:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            return f"Its first convolution, {name or 'the model'}, expects (N, {layer.in_channels}, H, W)."
        if isinstance(layer, nn.Linear):
            return f"Its first layer, {name or 'the model'}, expects {layer.in_features} features."
    return "It has no convolution or linear layer."
