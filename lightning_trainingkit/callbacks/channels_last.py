"""Run convolutions in the channels-last memory format."""

from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_trainingkit._lightning import L, rank_zero_info, refuse_other_package
from lightning_trainingkit.callbacks._lightning import after_build, refuse_twice
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["ChannelsLast"]


class ChannelsLast(L.Callback):
    """Store 4-d weights and batches channels last in every stage; all values stay equal.

    A tensor of shape ``(N, C, H, W)`` keeps its shape and gets the strides of ``(N, H, W, C)``, which are fast for
    convolutions on tensor cores.

    - **Weights** get their own strides back when the stage ends, also after an exception.
    - **Batches** are converted in place. A tensor that a loader passes on without a copy keeps the new strides.
    - **No 4-d weight**: the callback changes neither the model nor the batches, and says so once.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[ChannelsLast()], logger=False)

    References:
        "Channels Last Memory Format in PyTorch", pytorch.org/tutorials/intermediate/memory_format_tutorial.html.
    """

    def __init__(self) -> None:
        self._converted: list[tuple[nn.Module, str, tuple[int, ...]]] = []
        self._undo_hooks: Any = None
        self._has_images = False
        self._said = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Convert the weights, before they are restored, compiled or wrapped."""
        refuse_other_package(self, trainer)
        refuse_twice(trainer, self, "Keep one.")
        self._put_back()
        self._undo_hooks = after_build(pl_module, lambda: self._convert(pl_module))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Convert the batch."""
        self._convert_batch(pl_module, batch)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Convert the batch."""
        self._convert_batch(pl_module, batch)

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Convert the batch."""
        self._convert_batch(pl_module, batch)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Convert the batch."""
        self._convert_batch(pl_module, batch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the module as trained."""
        mark_trained(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the weights their own strides again."""
        self._put_back()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the weights their own strides again."""
        self._put_back()

    def _convert(self, pl_module: L.LightningModule) -> None:
        for owner in pl_module.modules():
            for name, tensor in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
                if is_lazy(tensor) or tensor.dim() != 4:
                    continue
                self._has_images |= isinstance(tensor, nn.Parameter)
                if tensor.is_contiguous():
                    # By name: moving the model to another device replaces its buffers.
                    self._converted.append((owner, name, tensor.stride()))
                    _channels_last(tensor)

    def _convert_batch(self, pl_module: L.LightningModule, batch: Any) -> None:
        if self._has_images:
            # A batch is mostly a list of tensors. Right after a step each function call takes ten times its usual time.
            for part in batch if isinstance(batch, list | tuple) else (batch,):
                if isinstance(part, Tensor):
                    _channels_last(part)
                else:
                    apply_to_collection(part, Tensor, _channels_last)
        elif not self._said:
            self._said = True
            rank_zero_info(f"ChannelsLast does nothing: {type(pl_module).__name__} has no 4-d weight.")

    def _put_back(self) -> None:
        if self._undo_hooks is not None:
            self._undo_hooks()
            self._undo_hooks = None
        for owner, name, stride in self._converted:
            tensor = getattr(owner, name, None)
            if isinstance(tensor, Tensor) and tensor.dim() == 4:
                found = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device)
                tensor.data = found.copy_(tensor.data)
        self._converted = []
        self._has_images = False


def _channels_last(tensor: Tensor) -> Tensor:
    if tensor.dim() == 4 and tensor.is_floating_point():
        inference = tensor.is_inference()
        # Not `contiguous`: a tensor of one channel has both formats, and would keep the slow strides.
        if inference == torch.is_inference_mode_enabled():  # switching the mode takes longer than the conversion
            tensor.data = tensor.to(memory_format=torch.channels_last)
        else:  # evaluation loops run in inference mode, and would make a user's own tensor unfit for training
            with torch.inference_mode(inference):
                tensor.data = tensor.to(memory_format=torch.channels_last)
    return tensor
