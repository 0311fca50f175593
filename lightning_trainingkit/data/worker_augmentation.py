"""Augment training images in the process that loads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit._lightning import L
from lightning_trainingkit.data.alternating_flip import alternating_flip
from lightning_trainingkit.data.policies import policy_transform
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_drawing import draw_augmentation
from lightning_trainingkit.functional.augmentation_images import augment
from lightning_trainingkit.functional.augmentation_policies import plain_policy, read_policy

__all__ = ["CurrentEpoch", "WorkerAugmentation"]

_ALTERNATING = "alternating_flip"


class CurrentEpoch:
    """The epoch of a Trainer. In a worker it is the epoch in which the worker was started.

    A forked worker has a copy of the Trainer's memory. A spawned worker gets the number alone.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self._trainer: L.Trainer | int = trainer

    def __call__(self) -> int:
        """Return the number of the epoch."""
        return self._trainer if isinstance(self._trainer, int) else self._trainer.current_epoch

    def __getstate__(self) -> dict[str, int]:
        return {"_trainer": self()}


class WorkerAugmentation:
    """A policy that augments the training images of a DataModule, in the process that loads them.

    Random numbers come from torch's generator of that process. ``alternating_flip`` draws from ``seed`` alone.

    Args:
        policy: Name of a policy, an ``Augmentation``, or its ranges by name.
        image_shape: Channels, height and width of the images.
        seed: Fixes the first flips of ``alternating_flip``.

    Raises:
        TypeError: If ``policy`` has another type.
        ValueError: If there is no such policy, or if the policy can't be used for such images.
    """

    def __init__(
        self, policy: str | Augmentation | Mapping[str, Any], image_shape: tuple[int, int, int], seed: int
    ) -> None:
        self.policy = read_policy("augment", policy)
        self._seed = seed
        self._epoch: CurrentEpoch | None = None
        self._transform: v2.Compose | None = None
        if isinstance(self.policy, str) and self.policy != _ALTERNATING:
            self._transform = policy_transform(self.policy, image_shape[1])
        self._rehearse(image_shape)

    @property
    def whole(self) -> bool:
        """Whether the policy takes each image at its own size."""
        return self.policy == "imagenet_resnet"

    def follow(self, trainer: L.Trainer | None) -> None:
        """Take the number of the epoch from this Trainer.

        Raises:
            ValueError: If the policy needs the epoch and there is no Trainer.
        """
        if trainer is None and self.policy == _ALTERNATING:
            raise ValueError(
                f"`augment` must know the epoch, got {_ALTERNATING!r} without a Trainer. Let a Trainer load the "
                "batches, or use augment='cifar', whose flips are drawn for each image."
            )
        self._epoch = None if trainer is None else CurrentEpoch(trainer)

    def __call__(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Return augmented images ``(N, C, H, W)``, bytes or floats from 0 to 1.

        Args:
            images: Bytes, or floats from 0 to 1, ``(N, C, H, W)``.
            indices: The place of each image in the data set.
        """
        if isinstance(self.policy, Augmentation):
            pixels = F.to_dtype(images, torch.float32, scale=True)
            draws = draw_augmentation(self.policy, len(pixels), (pixels.shape[2], pixels.shape[3]))
            return augment(pixels, self.policy, draws)
        if self._transform is None:
            return alternating_flip(images, indices, 0 if self._epoch is None else self._epoch(), self._seed)
        return torch.stack([self._transform(image) for image in images])  # torchvision changes a batch alike

    def _rehearse(self, image_shape: tuple[int, int, int]) -> None:
        """Refuse a policy that does not suit the images, before a training starts."""
        try:
            with torch.random.fork_rng(devices=[]):
                shape = tuple(self(torch.zeros(1, *image_shape), [0]).shape[1:])
        except ValueError as error:
            given = plain_policy("augment", self.policy)
            raise ValueError(f"`augment` must suit images of shape {image_shape}, got {given!r}. {error}") from error
        if shape != image_shape:
            raise ValueError(
                f"`augment` must keep the size of the images, {image_shape[1]} pixels, got a crop of {shape[1:]}. "
                "Leave `crop` out: with `padding` the crop has the size of the image."
            )
