"""Find the images and the target in a batch, and make a batch with others. No other file knows what a batch looks like.

A batch is a tensor of images, a list, a tuple, a named tuple or a dict. The entries are found by these rules, in order:

- **Named**: ``image`` and ``target`` name an entry: a key of a dict, a field of a named tuple, an index.
- **Usual names** of dicts and named tuples, such as ``"image"`` and ``"label"``.
- **The only entry that can be images**: a tensor ``(N, C, H, W)`` of floats or bytes.
- **Pairs**: of two entries, the images are the first and the target is the second. Two image tensors of one shape may
  be two views, and must be named.

What these rules leave open is an error that lists the entries.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["ImageBatch", "Key", "describe", "find_images"]

Key = int | str
_IMAGES = frozenset({"image", "images", "img", "imgs", "x", "input", "inputs", "pixel_values"})
_TARGETS = frozenset(
    {"label", "labels", "target", "targets", "y", "mask", "masks", "class", "classes", "segmentation", "pixel_labels"}
)
_KEEP: Any = object()


@dataclass(frozen=True)
class ImageBatch:
    """A batch, and where its images and its target are.

    Attributes:
        whole: The batch as a module takes it.
        image: Key of the images, None if the batch is a tensor.
        target: Key of the target, None if there is none.
        images: The images.
        labels: The target, None if there is none.
    """

    whole: Any
    image: Key | None
    target: Key | None
    images: Tensor
    labels: Any

    def replaced(self, images: Tensor = _KEEP, labels: Any = _KEEP) -> "ImageBatch":
        """Return a new batch with other images or another target. Its container is copied, and not changed."""
        whole, new = self.whole, self
        if images is not _KEEP:
            whole, new = _put(whole, self.image, images), replace(new, images=images)
        if labels is not _KEEP:
            whole, new = _put(whole, self.target, labels), replace(new, labels=labels)
        return replace(new, whole=whole)

    def entries(self) -> dict[Key, Any]:
        """Return all entries but the images."""
        return {
            key: value for key, value in _entries(self.whole).items() if key != self.image and self.image is not None
        }

    def rows(self) -> dict[Key, Tensor]:
        """Return the tensors beside the images that have one row for each image."""
        count = len(self.images)
        return {
            key: value
            for key, value in self.entries().items()
            if isinstance(value, Tensor) and value.dim() > 0 and len(value) == count
        }

    def is_usual_target(self, key: Key) -> bool:
        """Whether an entry has a usual name of targets."""
        return _name(key, self.whole) in _TARGETS

    def put(self, key: Key, value: Any) -> "ImageBatch":
        """Return a new batch with another value of an entry."""
        new = replace(self, whole=_put(self.whole, key, value))
        return replace(new, labels=value) if key == self.target else new


def find_images(
    batch: Any, image: Key | None = None, target: Key | None = None, *, pixels: bool = True, labels: bool = False
) -> ImageBatch:
    """Find the images and the target.

    Args:
        batch: A batch.
        image: Key of the images, None to look for them.
        target: Key of the target, None to look for it.
        pixels: Whether the images must be ``(N, C, H, W)``. Otherwise any tensor with two dimensions or more will do.
        labels: Whether there must be a target.

    Returns:
        The batch with its parts. The target is None if ``labels`` is False and the rules find none.

    Raises:
        TypeError: If the batch is no tensor, list, tuple or dict.
        ValueError: If the entries cannot be told.

    Example:
        >>> images, labels = torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> find_images({"image": images, "label": labels}).target
        'label'
        >>> find_images((images, labels)).replaced(images + 1).whole[0].mean()
        tensor(1.)
    """
    entries = _entries(batch)
    if isinstance(batch, Tensor):
        key, other = None, None
        if image is not None or target is not None:
            raise ValueError(
                f"`{'target' if image is None else 'image'}` must be None for a batch of one tensor, got "
                f"{(target if image is None else image)!r}. Let the DataLoader return a list or a dict."
            )
        images = batch
    else:
        key = _image_key(entries, batch, image, target, pixels)
        images = entries[key]
        other = _target_key(entries, batch, key, target, labels)
    if labels and other is None:
        raise ValueError(f"`batch` must hold a target, got {describe(batch)}. Let the DataLoader return targets too.")
    if not isinstance(images, Tensor) or images.dim() < 2 or (pixels and images.dim() != 4):
        raise ValueError(
            f"`image` must be a tensor {'(N, C, H, W)' if pixels else 'of two dimensions or more'}, got "
            f"{_shape(images)} in a batch with {describe(batch)}. Name the images by `image`, or stack them."
        )
    return ImageBatch(batch, key, other, images, None if other is None else entries[other])


def describe(batch: Any) -> str:
    """List the entries of a batch, for an error."""
    return ", ".join(f"{key!r}: {_shape(value)}" for key, value in _entries(batch).items()) or "nothing"


def _entries(batch: Any) -> dict[Key, Any]:
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, list | tuple):
        return dict(enumerate(batch))
    if isinstance(batch, Tensor):
        return {"the tensor": batch}
    raise TypeError(
        f"`batch` must be a tensor, a list, a tuple or a dict, got {type(batch).__name__}. "
        "Let the DataLoader's `collate_fn` return one of these."
    )


def _image_key(entries: dict[Key, Any], batch: Any, image: Key | None, target: Key | None, pixels: bool) -> Key:
    if image is not None:
        return _named("image", image, entries, batch)
    taken = None if target is None else _named("target", target, entries, batch)
    free = {key: value for key, value in entries.items() if key != taken}
    usual = [key for key in free if _name(key, batch) in _IMAGES]
    alike = [key for key, value in free.items() if _is_image(value)]
    for keys in (usual, alike):
        if len(keys) == 1:
            return keys[0]
    alone = len(entries) == 1 and not pixels
    twins = len(alike) == 2 and entries[alike[0]].shape == entries[alike[1]].shape  # two views, or an image as target
    if not isinstance(batch, Mapping) and 0 in free and (alone or (len(entries) == 2 and not twins)):
        return 0
    raise ValueError(
        f"`image` must name the images of a batch whose entries do not tell, got None for {describe(batch)}. "
        f"Write image={next(iter(entries), 0)!r}, say."
    )


def _target_key(entries: dict[Key, Any], batch: Any, image: Key, target: Key | None, needed: bool) -> Key | None:
    if target is not None:
        key = _named("target", target, entries, batch)
        if key == image:
            raise ValueError(f"`target` must differ from `image`, got {target!r} for both. Name another entry.")
        return key
    free = [key for key in entries if key != image]
    usual = [key for key in free if _name(key, batch) in _TARGETS]
    if len(usual) == 1:
        return usual[0]
    if not usual and len(free) == 1 and not isinstance(batch, Mapping):
        return free[0]
    if not needed:
        return None
    raise ValueError(
        f"`target` must name the target of a batch whose entries do not tell, got None for {describe(batch)}. "
        f"Write target={next(iter(usual or free), 1)!r}, say."
    )


def _named(argument: str, key: Key, entries: dict[Key, Any], batch: Any) -> Key:
    found = getattr(batch, "_fields", ()).index(key) if key in getattr(batch, "_fields", ()) else key
    if isinstance(found, int) and isinstance(batch, list | tuple) and -len(entries) <= found < 0:
        found += len(entries)
    if found not in entries:
        raise ValueError(f"`{argument}` must name an entry of the batch, got {key!r}. It has {describe(batch)}.")
    return found


def _name(key: Key, batch: Any) -> str:
    fields = getattr(batch, "_fields", None)
    return str(fields[key] if fields and isinstance(key, int) else key).lower()


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and (value.is_floating_point() or value.dtype == torch.uint8)


def _put(batch: Any, key: Key | None, value: Any) -> Any:
    if key is None:
        return value
    if isinstance(batch, tuple):
        assert isinstance(key, int)
        changed = (*batch[:key], value, *batch[key + 1 :])
        return batch._make(changed) if hasattr(batch, "_make") else type(batch)(changed)
    copied = copy.copy(batch)
    copied[key] = value
    return copied


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
