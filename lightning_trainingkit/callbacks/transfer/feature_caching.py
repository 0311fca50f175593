"""Feature caches for the modules that a LightningModule's steps call."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torchmetrics import Metric

from lightning_trainingkit._lightning import L, is_overridden, rank_zero_info
from lightning_trainingkit.callbacks._lightning import is_compiled, keep_random_state
from lightning_trainingkit.functional.content_keys import content_keys
from lightning_trainingkit.nn.structure.bypass import are_caches_bypassed
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.transfer.boundary import NoBoundaryError, find_boundary
from lightning_trainingkit.nn.transfer.disk_room import DiskRoom
from lightning_trainingkit.nn.transfer.feature_cache import FeatureCache, block_bytes, replace_forward
from lightning_trainingkit.nn.transfer.freezing import ParameterFreezer

__all__ = ["FeatureCaching", "targets"]


class FeatureCaching:
    """Patches the forward of a module's parts, and caches features in the phases that allow it.

    The user's forward pass runs as it is

    - **in other phases**,
    - **for images that need a gradient**,
    - **while a frozen layer is in training mode**,
    - **inside** ``caches_bypassed``.

    Args:
        trainer: The Trainer, whose loaders are there.
        pl_module: The trained module.
        freezer: Freezes its layers.
        limit: Most bytes of features on one rank.
        folder: Where to store features on a disk. None stores them on the images' device.
        phase: Returns number and trainable parameters of the phase.
        in_each_phase: Calls a function once with the layers frozen as in each phase.

    Raises:
        ValueError: If the module is compiled, or images of the training set change.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        freezer: ParameterFreezer,
        limit: int,
        folder: Path | None,
        phase: Callable[[], tuple[int, Collection[nn.Parameter]]],
        in_each_phase: Callable[[Callable[[], Any]], None],
    ) -> None:
        if is_compiled(pl_module):
            kind = type(pl_module).__name__
            raise ValueError(
                f"`cache_features` must be False for a compiled module, got {kind}. Do without one of them."
            )
        if _augments(trainer):
            raise ValueError(
                "`cache_features` must be False where images change, got a training set whose first sample is not the "
                "same twice: augmentation. Take the random transforms out, or train without cache_features."
            )
        self._trainer, self._freezer, self._limit = trainer, freezer, limit
        self._room = None if folder is None else DiskRoom(folder)
        self._room_needed: dict[int, dict[str, int]] = {}  # bytes on the disk, by phase and module
        self._phase, self._in_each_phase = phase, in_each_phase
        self._caches: dict[tuple[Any, ...], FeatureCache] = {}  # by module, phase, training, mode and precision
        self._reasons: dict[tuple[Any, ...], str] = {}  # why there is no cache, by the same key
        self._running = self._checked = False
        self._whole = self._known = False  # this epoch, or an earlier one of the phase, ran whole
        self._put_back: dict[str, Callable[[], None]] = {}
        for name, module in targets(pl_module).items():
            self._put_back[name] = replace_forward(module, partial(self._run, name, module, module.forward))

    def remove(self) -> None:
        """Restore the forwards."""
        for put_back in self._put_back.values():
            put_back()
        self._running = True  # for good: a wrapper around a forward may still call `_run`
        self._caches.clear()

    def begin_phase(self) -> None:
        """Forget all features, since other layers are frozen now."""
        self._whole = self._known = False
        self._caches.clear()
        self._reasons.clear()
        if self._room is not None:
            self._room.clear()

    def begin_epoch(self) -> None:
        """Start to count the images of an epoch."""
        self._whole = True
        for cache in self._caches.values():
            cache.compares, cache.hits, cache.misses = True, 0, 0

    def compare(self) -> None:
        """At the next batch compute two known images again, and compare their features."""
        for cache in self._caches.values():
            cache.compares = True

    def end_epoch(self) -> None:
        """Raise RuntimeError on all ranks if hardly any image was known, in an epoch after the first of a phase."""
        if not self._whole:  # a resumed run may end an epoch again without a batch
            return
        strategy, counts = self._trainer.strategy, [(c.hits, c.misses) for key, c in self._caches.items() if key[2]]
        sums = torch.tensor([(0, 0), *counts], dtype=torch.float64, device=strategy.root_device).sum(0)
        hits, misses = (int(count) for count in cast("Tensor", strategy.reduce(sums, reduce_op="sum")))
        # In its second epoch a rank knows one image in `world_size`. Far fewer can't be chance.
        if self._known and hits < 0.1 / self._trainer.world_size * (hits + misses):
            raise RuntimeError(
                f"`cache_features` must be False where images change, got {hits} images of {hits + misses} in the last "
                "epoch that had been seen before: augmentation (in the data set, on the batch, mixup), or a "
                "different subset in each epoch. Train without cache_features."
            )
        self._whole, self._known = False, True

    def check(self) -> None:
        """Print once which phases are not cached; raise ValueError if none is."""
        if self._checked:
            return
        self._checked = True
        cached = {phase for _, phase, training, *_ in self._caches if training}
        reasons = {key: reason for key, reason in self._reasons.items() if key[1] not in cached}
        text = ", ".join(f"phase {key[1] + 1} ({key[0]}: {reason})" for key, reason in reasons.items())
        if not cached:
            text = text or f"a training step that calls none of {', '.join(self._put_back)} as a module"
            raise ValueError(f"`cache_features` must be False where no phase can be cached, got {text}. Leave it out.")
        if text:
            rank_zero_info(f"TransferLearning does not cache {text}")

    def _run(self, name: str, module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
        if self._running or are_caches_bypassed() or not self._freezer.holds_eval_mode:
            return forward(*args, **kwargs)
        if len(args) != 1 or kwargs or not isinstance(args[0], Tensor) or args[0].ndim < 2 or not len(args[0]):
            self._reasons[name, self._phase()[0]] = "it is not called with one tensor of images"
            return forward(*args, **kwargs)
        (x,), self._running = args, True
        try:
            if not self._checked and self._trainer.training:
                self._in_each_phase(lambda: self._cache(name, module, forward, x))
                self._reserve()
            cache = self._cache(name, module, forward, x)
            if cache is not None and not (x.requires_grad and torch.is_grad_enabled()):
                features = cache.features(x)
                self._check_limit(sum(each.bytes for each in self._caches.values()), "images so far need")
                return cache.boundary.part(features)
        finally:
            self._running = False
        return forward(x)

    def _cache(self, name: str, module: nn.Module, forward: Any, x: Tensor) -> FeatureCache | None:
        training, (phase, trainable) = self._trainer.training, self._phase()
        kind = x.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (name, phase, training, module.training, autocast)
        if key in self._caches or key in self._reasons:
            return self._caches.get(key)
        try:
            boundary, features = find_boundary(module, forward, x[:2].detach(), trainable)
        except NoBoundaryError as error:
            self._reasons[key] = str(error)
            return None
        images, size = _count(self._trainer, training), features[0].nbytes
        what = f"{name} before {boundary.place} in phase {phase + 1}, {'training' if training else 'evaluation'}"
        rank_zero_info(f"TransferLearning caches {what}: {images or 'unknown'} images x {size / 2**10:.4g} KiB")
        others = _count(self._trainer, not training)
        self._check_limit(size * (images + others), f"phase {phase + 1} needs")
        room = sum(block_bytes(features[0], count) for count in (images, others))
        self._room_needed.setdefault(phase, {})[name] = room
        self._caches[key] = FeatureCache(boundary, self._room)
        return self._caches[key]

    def _reserve(self) -> None:
        """Reserve the room on the disk; raise ValueError on all ranks if one of them lacks it."""
        if self._room is None:
            return
        fault: ValueError | None = None
        try:
            self._room.reserve(max((sum(each.values()) for each in self._room_needed.values()), default=0))
        except ValueError as error:
            fault = error
        if not self._trainer.strategy.reduce_boolean_decision(fault is None, all=True):
            raise fault or ValueError(
                f"`cache_features='disk'` must have room for the features of each rank, got {self._room.folder} "
                "without it on another rank. Free the room, or give the Trainer another `default_root_dir`."
            )

    def _check_limit(self, needed: int, what: str) -> None:
        if needed > self._limit:
            raise ValueError(
                f"`cache_limit` must leave room for all features, got {self._limit / 2**30:.4g} GiB, and {what} "
                f"{needed / 2**30:.4g} GiB. Raise it, or store them on disk: cache_features='disk'."
            )


def targets(pl_module: L.LightningModule) -> dict[str, nn.Module]:
    """The modules that a step may call, by name: the submodule with all parameters, or the module and its parts."""
    name, module = "", pl_module
    while len(parts := _parts(name, module)) == 1 and next(module.parameters(recurse=False), None) is None:
        ((name, module),) = parts.items()
    own = {type(pl_module).__name__: pl_module} if is_overridden("forward", pl_module) else {}
    return {name: module} if name else own | parts


def _parts(name: str, module: nn.Module) -> dict[str, Any]:
    """Direct children with parameters, and the members of lists and dicts of modules."""
    found: dict[str, Any] = {}
    for key, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            found |= _parts(join(name, key), child)
        elif not isinstance(child, Metric) and next(child.parameters(), None) is not None:
            found[join(name, key)] = child
    return found


def _count(trainer: L.Trainer, training: bool) -> int:
    """Images that one rank will see, 0 if unknown."""
    loaders = tree_leaves(trainer.train_dataloader if training else trainer.val_dataloaders)
    images = sum(len(each.dataset) for each in loaders if hasattr(getattr(each, "dataset", None), "__len__"))
    # Each epoch deals the training images to the ranks again.
    return images if training else -(-images // trainer.world_size)


def _augments(trainer: L.Trainer) -> bool:
    """Whether the first training image differs when it is read 8 times; False if reading it raises."""
    put_back, loader = keep_random_state(), cast("Any", trainer.train_dataloader)
    try:
        # In a worker, as the loader does: workers would share a file that the data set opens here.
        samples = DataLoader(loader.dataset, None, sampler=[0] * 8, num_workers=min(1, loader.num_workers))
        first, *others = [
            [content_keys(torch.as_tensor(leaf)[None]) for leaf in tree_leaves(sample) if hasattr(leaf, "__array__")]
            for sample in samples
        ]
        return any(not torch.equal(*pair) for other in others for pair in zip(first, other, strict=True))
    except Exception:  # of the user's own code: the loader will raise it again
        return False
    finally:
        put_back()
