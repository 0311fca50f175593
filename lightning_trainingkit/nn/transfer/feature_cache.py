"""Compute the frozen part of a module once for each image, and continue from the stored features."""

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional.content_keys import content_keys
from lightning_trainingkit.nn.structure.replaced_forward import take_away
from lightning_trainingkit.nn.transfer.boundary import Boundary, NoBoundaryError, same_features
from lightning_trainingkit.nn.transfer.disk_room import DiskRoom

__all__ = ["FeatureCache", "block_bytes", "replace_forward"]

_BLOCK_BYTES = 2**22


class FeatureCache:
    """Features at a boundary, stored by the content of the images.

    They stay on the device of the images, or in ``room`` on a disk.
    """

    def __init__(self, boundary: Boundary, room: DiskRoom | None = None) -> None:
        self.boundary, self._room = boundary, room
        self.hits = self.misses = self.bytes = 0  # known images, new images, bytes of the stored features
        self.compares = False  # whether two known images are to be computed again
        self._rows: dict[Any, int] = {}
        self._blocks: list[Tensor] = []

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Look up the features of images; compute and store the missing ones. Raise if the frozen part has changed."""
        keys = [(x.shape[1:], x.dtype, *pair) for pair in content_keys(x).tolist()]
        known = [row for row, key in enumerate(keys) if key in self._rows]
        missing = [row for row, key in enumerate(keys) if key not in self._rows]
        self.hits, self.misses = self.hits + len(known), self.misses + len(missing)
        try:
            if self.compares:  # on all ranks, even without known images: the forward may sum over ranks
                self.compares, two = False, ((known + missing) * 2)[:2]
                features, stored = self.boundary.check(x[two])[0], [keys[row] for row in two if row in known]
                if stored and not same_features(features[: len(stored)], self._take(stored, x.device)):
                    raise NoBoundaryError("other features of the same images")
            if missing:
                self._add([keys[row] for row in missing], self.boundary.features(x[missing] if known else x))
        except NoBoundaryError as error:
            raise RuntimeError(
                "`cache_features` must be False where the frozen part changes or images have several sizes, got "
                f"{type(self.boundary.module).__name__}: {error}. Train without cache_features."
            ) from error
        return self._take(keys, x.device)

    def _take(self, keys: list[Any], device: torch.device) -> Tensor:
        places = [divmod(self._rows[key], len(self._blocks[0])) for key in keys]
        return torch.stack([self._blocks[block][row] for block, row in places]).to(device)

    @torch.inference_mode(False)  # tensors made in inference mode can't be trained on
    @torch.no_grad()
    def _add(self, keys: list[Any], features: Tensor) -> None:
        if self._blocks and self._blocks[0].shape[1:] != features.shape[1:]:
            raise NoBoundaryError(f"features of several shapes, now {tuple(features.shape[1:])}")
        for key, row in zip(keys, features, strict=True):
            if key not in self._rows:
                if len(self._rows) == sum(map(len, self._blocks)):
                    self._blocks.append(self._allocate(row))
                self._blocks[-1][len(self._rows) % len(self._blocks[0])] = row
                self._rows[key] = len(self._rows)
                self.bytes += row.nbytes

    def _allocate(self, row: Tensor) -> Tensor:
        shape = torch.Size((_rows_per_block(row), *row.shape))
        if self._room is None:
            return torch.empty(shape, dtype=row.dtype, device=row.device)
        return self._room.take(shape.numel() * row.itemsize).view(row.dtype).view(shape)


def block_bytes(row: Tensor, images: int) -> int:
    """Bytes of the blocks that hold the features of ``images`` images, each like ``row``."""
    rows = _rows_per_block(row)
    return -(-images // rows) * DiskRoom.rounded(rows * row.nbytes)


def _rows_per_block(row: Tensor) -> int:
    return max(1, _BLOCK_BYTES // max(1, row.nbytes))


def replace_forward(module: nn.Module, run: Callable[..., Any]) -> Callable[[], None]:
    """Call ``run`` in place of a module's forward, but not of its copies' forward. Return a function that undoes it."""
    found, own = vars(module).get("forward"), type(module).forward
    if found is not None:
        own = getattr(found, "__func__", lambda _, *args, **kwargs: found(*args, **kwargs))

    @wraps(own)  # pickle finds the forward of a copy by its name
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs) if self is module else own(self, *args, **kwargs)

    patch = vars(module)["forward"] = MethodType(forward, module)
    return lambda: take_away(module, patch, found)
