"""Augmentations by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation

__all__ = ["DEVICE_POLICIES", "WORKER_POLICIES", "find_policy", "plain_policy", "read_policy"]

DEVICE_POLICIES: dict[str, Augmentation] = {
    "none": Augmentation(),
    "cifar": Augmentation(horizontal_flip=0.5, padding=4),
    "geometric": Augmentation(translation=0.1, rotation=10, stretch=(0.9, 1.11), shear=5, lens_k1=0.1),
}
"""Policies that run in the workers and on a device."""

_TORCHVISION = "torchvision changes all images of a batch alike, so it must be called image by image"
WORKER_POLICIES: dict[str, str] = {
    "imagenet_resnet": "it resizes and cuts each image from its own size, and the images of a batch have one size",
    "autoaugment": _TORCHVISION,
    "randaugment": _TORCHVISION,
    "trivialaugment": _TORCHVISION,
    "alternating_flip": "it must know the place of each image in the data set, which a batch does not tell",
}
"""Policies that run in the workers alone, with the reason."""

_HINT = "Give a name, an Augmentation, or its ranges by name such as {'horizontal_flip': 0.5}."


def find_policy(policy: str | Augmentation | Mapping[str, Any], name: str = "policy") -> Augmentation:
    """Return the ranges of a policy that runs on a device.

    Args:
        policy: Name of a policy, an ``Augmentation``, or its ranges by name as from YAML.
        name: Name of the argument, for errors.

    Raises:
        TypeError: If the policy has another type, or a range has.
        ValueError: If there is no such policy, if it runs in the workers alone, or if a range is outside its bounds.

    Example:
        >>> find_policy("cifar").padding, find_policy({"rotation": 15}).rotation
        (4, (-15.0, 15.0))
    """
    found = read_policy(name, policy)
    if isinstance(found, str):
        raise ValueError(
            f"`{name}` must be able to run on the device, got {found!r}, which runs in the workers alone: "
            f"{WORKER_POLICIES[found]}. Give it to the DataModule: augment={found!r}."
        )
    return found


def read_policy(name: str, policy: Any) -> str | Augmentation:
    """Return the ranges of a policy, or the name of a policy that runs in the workers alone.

    Args:
        name: Name of the argument, for errors.
        policy: Name of a policy, an ``Augmentation``, or its ranges by name as from YAML.

    Raises:
        TypeError: If the policy has another type, or a range has.
        ValueError: If there is no such policy, or if a range is outside its bounds.
    """
    if isinstance(policy, Augmentation):
        return policy
    if isinstance(policy, Mapping):
        known = [field.name for field in fields(Augmentation)]
        if unknown := next((key for key in policy if key not in known), None):
            near = ", ".join(_check.nearest(str(unknown), known, 4))
            raise ValueError(f"`{name}` must hold ranges of Augmentation, got {unknown!r}. The nearest are: {near}.")
        return Augmentation(**policy)
    if not isinstance(policy, str):
        raise TypeError(f"`{name}` must be a policy, got {policy!r}. {_HINT}")
    if policy in DEVICE_POLICIES:
        return DEVICE_POLICIES[policy]
    if policy not in WORKER_POLICIES:
        known = _check.nearest(policy, [*DEVICE_POLICIES, *WORKER_POLICIES])
        raise ValueError(
            f"`{name}` must be the name of a policy, got {policy!r}. The nearest are: {', '.join(known)}. {_HINT}"
        )
    return policy


def plain_policy(name: str, policy: Any) -> str | dict[str, Any]:
    """Return a policy as a name, or as the ranges that differ from their defaults: any checkpoint can hold both.

    Args:
        name: Name of the argument, for errors.
        policy: Name of a policy, an ``Augmentation``, or its ranges by name as from YAML.

    Raises:
        TypeError: If the policy has another type, or a range has.
        ValueError: If there is no such policy, or if a range is outside its bounds.

    Example:
        >>> plain_policy("augment", Augmentation(rotation=15, padding=2))
        {'rotation': [-15.0, 15.0], 'padding': 2}
    """
    found = read_policy(name, policy)
    if isinstance(policy, str) or isinstance(found, str):
        return str(policy)
    default = Augmentation()
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    return {key: _listed(value) for key, value in values.items() if value != getattr(default, key)}


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value
