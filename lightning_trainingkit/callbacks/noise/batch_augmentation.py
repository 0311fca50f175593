"""Augment training batches on their device, each image in its own way."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.annotations import Annotations
from lightning_trainingkit.callbacks.noise.training_batch import BatchCallback
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_drawing import draw_augmentation
from lightning_trainingkit.functional.augmentation_draws import AugmentationDraws
from lightning_trainingkit.functional.augmentation_images import augment
from lightning_trainingkit.functional.augmentation_inputs import check_numbers
from lightning_trainingkit.functional.augmentation_policies import find_policy, plain_policy
from lightning_trainingkit.functional.image_batch import ImageBatch, Key
from lightning_trainingkit.nn.layers.decorrelate import Decorrelate
from lightning_trainingkit.nn.layers.standardize import Standardize

__all__ = ["BatchAugmentation"]

_SLACK = 0.02  # rounding of bfloat16, and of constants such as 0.485


class BatchAugmentation(BatchCallback):
    """Augment each image of a training batch in its own way, on the batch's device; evaluation is untouched.

    Geometry is one interpolation, linear colour one matrix. Masks, boxes and keypoints in the batch move with their
    images. ``training_step`` gets a new batch, and the user's batch is not changed. Random numbers come from a stream
    of the callback's own.

    Args:
        policy: ``"cifar"``, ``"geometric"``, ``"none"``, an ``Augmentation``, or a dict of its ranges.
        mean: Channel means of the normalisation that the images have gone through. None takes the kit's DataModule's
            preprocessing. With other data None says that images are in [0, 1].
        std: Channel standard deviations of that normalisation. None says that it subtracted means alone.
        mask_fill: Value of masks outside of the images, such as the index that a loss ignores.
        until: Share of the training after which no batch is changed, such as 0.9.
        image: Key or index of the images in the batch. None finds them in pairs and under usual names.
        target: Key or index of the target in the batch. None finds it in pairs and under usual names.
        seed: Seed of the random numbers. None takes torch's seed at the start of the fit.

    Raises:
        TypeError: If images are bytes.
        ValueError: If a policy is unknown or runs in the workers alone, or if images are not in the range.

    Example:
        >>> import lightning as L
        >>> augmentation = BatchAugmentation("cifar", mean=[0.49, 0.48, 0.45], std=[0.25, 0.24, 0.26])
        >>> trainer = L.Trainer(callbacks=[augmentation], logger=False, enable_checkpointing=False)

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385 (the policy ``cifar``).
    """

    order = 0

    def __init__(
        self,
        policy: str | Augmentation | dict[str, Any],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        mask_fill: int = 0,
        until: float = 1.0,
        image: Key | None = None,
        target: Key | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(until=until, image=image, target=target, seed=seed)
        self.policy = plain_policy("policy", policy)
        self.mean, self.std = mean, std
        self.mask_fill = _check.integer("mask_fill", mask_fill, "Write 255 for an ignore_index of 255.")
        self._augmentation = find_policy(policy)
        if mean is None and std is not None:
            raise ValueError(f"`mean` must be given beside `std`, got None and {std}. Give both.")
        self._given = None if mean is None else Standardize(mean, std)
        self._preprocessing: nn.Module | None = None
        self._inverted: Tensor | None = None
        self._black: list[float] | None = None

    def start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: ImageBatch) -> None:
        """Find the normalisation, and refuse images that are not in [0, 1] without it."""
        images = batch.images
        if not images.is_floating_point():
            raise TypeError(
                f"`images` must be floating point for BatchAugmentation, got {images.dtype}. Convert them in the "
                "transforms of the data set: v2.ToDtype(torch.float32, scale=True)."
            )
        found = self._given if self._given is not None else _preprocessing_of(trainer)
        self._preprocessing = None if found is None else copy.deepcopy(found).to(images.device)
        self._inverted = _inverted(self._preprocessing)
        if isinstance(found, Standardize) and len(found.mean) not in (1, images.shape[1]):
            raise ValueError(
                f"`mean` must have a number for each channel, got {len(found.mean)} for {images.shape[1]} channels. "
                "Give as many."
            )
        self._black = _black_of(found, self._augmentation, images.shape[1])
        check_numbers(images)
        _check_range(self._inverse(images.float()), self._given is not None, found is not None)

    def change(self, batch: ImageBatch, generator: torch.Generator) -> ImageBatch:
        """Draw for each image, change the images, and move the masks, boxes and keypoints."""
        images, policy = batch.images, self._augmentation
        draws = draw_augmentation(policy, len(images), (images.shape[-2], images.shape[-1]), generator)
        changed = batch.replaced(_in_format(self._augmented(images, draws), images))
        if draws.moves:
            annotations = Annotations(policy, draws, self.mask_fill)
            for key, value in batch.entries().items():
                moved = annotations.move(value, str(key), key == batch.target)
                changed = changed if moved is value else changed.put(key, moved)
        return changed

    def _augmented(self, images: Tensor, draws: AugmentationDraws) -> Tensor:
        layer, policy = self._preprocessing, self._augmentation
        if self._black is not None:
            return augment(images, policy, draws, self._black)
        if layer is None:
            return augment(images, policy, draws)
        changed: Tensor = layer(augment(self._inverse(images.float()), policy, draws))
        return changed.to(images.dtype)

    def _inverse(self, images: Tensor) -> Tensor:
        layer = self._preprocessing
        if isinstance(layer, Decorrelate) and self._inverted is not None:
            return (images.flatten(1) @ self._inverted.T).view(images.shape) + layer.mean
        return images if layer is None else layer.inverse(images)  # type: ignore[operator]


def _preprocessing_of(trainer: L.Trainer) -> nn.Module | None:
    """The fitted preprocessing of the kit's DataModule, None if there is none."""
    found = getattr(trainer.datamodule, "preprocessing", None)  # type: ignore[attr-defined]
    return found if isinstance(found, Standardize | Decorrelate) else None


def _inverted(layer: nn.Module | None) -> Tensor | None:
    """The matrix that undoes a decorrelation. `Decorrelate.inverse` would solve a system on the CPU for each batch."""
    if not isinstance(layer, Decorrelate):
        return None
    inverted: Tensor = torch.linalg.inv(layer.matrix.cpu().double())
    return inverted.to(layer.matrix)


def _black_of(layer: nn.Module | None, augmentation: Augmentation, channels: int) -> list[float] | None:
    """Black after a normalisation by channel, with which geometry commutes: images need not be undone for it."""
    if not isinstance(layer, Standardize) or layer.mean[0].numel() > 1 or augmentation.changes_colour:
        return None
    black: list[float] = (-layer.mean / layer.std).flatten().tolist()
    return black * (channels // len(black))


def _check_range(images: Tensor, given: bool, found: bool) -> None:
    low, high = (bound.item() for bound in images.aminmax())
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    values = f"values from {low:.3g} to {high:.3g}"
    if given:
        raise ValueError(
            f"`mean` and `std` must lead back to images from 0 to 1, got {values}. "
            "Give those of the data set's transforms."
        )
    source = "after the DataModule's preprocessing was undone" if found else "as no normalisation is known"
    raise ValueError(
        f"`images` must be from 0 to 1 {source}, got {values}. Normalised images need mean and std, as in "
        "BatchAugmentation(..., mean=[0.5], std=[0.25]); bytes in floats are divided by 255."
    )


def _in_format(images: Tensor, like: Tensor) -> Tensor:
    """Images in the memory format of others: channels last for convolutions that run so."""
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return images.contiguous(memory_format=torch.channels_last) if last else images
