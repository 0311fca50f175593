"""Augmentation policies by name, as torchvision's v2 transforms."""

from collections.abc import Mapping
from typing import Any

from torchvision.transforms import v2

from lightning_trainingkit.data.transforms.augment import Augment
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.functional.augmentation_policies import WORKER_POLICIES, read_policy

__all__ = ["longest_side", "policy_transform"]

_SHORTER_SIDE = (256, 480)  # for crops of 224 pixels
_CROP = 224
_RESNET = Augmentation(horizontal_flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, colour_offset=0.1)


def policy_transform(policy: str | Augmentation | Mapping[str, Any], image_size: int) -> v2.Compose:
    """Make the v2 transform of a policy, for a data set of your own.

    - ``none``, ``cifar`` and ``geometric`` are ranges of `Augmentation`. They take images and batches of images.
    - ``imagenet_resnet``: the shorter side gets a random length, from 256 to 480 pixels for crops of 224 and in
      proportion for other sizes. Then come a random crop of ``image_size``, a flip, colour jitter and AlexNet's
      colour offset. It takes an image of any size.
    - ``autoaugment``, ``randaugment`` and ``trivialaugment`` are torchvision's, with its settings. They take an image.

    A transform that takes images draws from torch's generator.

    Args:
        policy: Name of a policy, an ``Augmentation``, or its ranges by name as from YAML.
        image_size: Height and width in pixels of the images for the model.

    Returns:
        A transform of tensors, bytes or floats from 0 to 1, and of Pillow's images, which become bytes. Add
        ``v2.ToDtype(torch.float32, scale=True)`` and a normalisation after it.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no such policy. ``alternating_flip`` is no transform of an image alone.

    Example:
        >>> import torch
        >>> transform = policy_transform("imagenet_resnet", image_size=224)
        >>> transform(torch.zeros(3, 300, 400, dtype=torch.uint8)).shape
        torch.Size([3, 224, 224])

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.
        Cubuk et al., "AutoAugment", CVPR 2019, arXiv:1805.09501; "RandAugment", NeurIPS 2020, arXiv:1909.13719.
        Müller and Hutter, "TrivialAugment", ICCV 2021, arXiv:2103.10158.
    """
    found = read_policy("policy", policy)
    size = _check.integer("image_size", image_size, "Try 224.", least=1)
    if isinstance(found, Augmentation):
        return v2.Compose([v2.PILToTensor(), Augment(found)])
    if found == "imagenet_resnet":
        shortest, longest = (round(side * size / _CROP) for side in _SHORTER_SIDE)
        sides = list(range(shortest, longest + 1))
        return v2.Compose([v2.PILToTensor(), v2.RandomShortestSize(sides), v2.RandomCrop(size), Augment(_RESNET)])
    auto = {"autoaugment": v2.AutoAugment, "randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
    if found not in auto:
        raise ValueError(
            f"`policy` must be a transform of an image alone, got {found!r}: {WORKER_POLICIES[found]}. "
            f"Give it to a DataModule of the kit: augment={found!r}."
        )
    return v2.Compose([v2.PILToTensor(), auto[found]()])


def longest_side(image_size: int) -> int:
    """The largest length that ``imagenet_resnet`` gives to the shorter side of an image."""
    return round(_SHORTER_SIDE[1] * image_size / _CROP)
