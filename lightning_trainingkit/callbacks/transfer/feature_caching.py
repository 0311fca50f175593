"""Feature caches for the modules that a LightningModule's steps call, and whether they are of use."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import IterableDataset
from torchmetrics import Metric

from lightning_trainingkit.callbacks._lightning import is_compiled, keep_random_state
from lightning_trainingkit.nn.structure.names import join
from lightning_trainingkit.nn.transfer.feature_cache import CacheContext, FeatureCache
from lightning_trainingkit.nn.transfer.freezing import ParameterFreezer
from lightning_trainingkit.nn.transfer.frozen_front import CannotCutError

__all__ = ["FeatureCaching", "refuse_caching"]


def refuse_caching(pl_module: L.LightningModule) -> None:
    """Raise ValueError for a compiled module: what is compiled does not ask a cache at each batch."""
    if is_compiled(pl_module):
        raise ValueError(
            f"`cache_features` must be False for a compiled module, got {type(pl_module).__name__}, compiled as a "
            "whole or in part. Do without one of the two."
        )


class FeatureCaching:
    """Feature caches in the place of those forwards from which all freezable parameters are reached.

    Args:
        trainer: The Trainer, which has begun to train.
        pl_module: Its module.
        freezer: Opens and closes its parameters.
        opened: Tells what trains in this phase, or in the one that is looked at.
        limit: Most bytes that all rows may take on one rank.
        on_disk: Whether they go into a file.
        survey: Opens this phase and each later one, and calls what it is given with its number.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        freezer: ParameterFreezer,
        opened: Callable[[], Collection[nn.Parameter]],
        limit: int,
        on_disk: bool,
        survey: Callable[[Callable[[int], None]], None],
    ) -> None:
        if _draws_anew(trainer):
            raise ValueError(
                "`cache_features` must be False where images change, got a training set whose first sample is not the "
                "same twice: augmentation. Take the random transforms out, or train without cache_features."
            )
        freezable = set(freezer.parameters)
        self._survey = survey
        around = CacheContext(
            limit,
            Path(trainer.default_root_dir) if on_disk else None,
            training=lambda: trainer.training,
            expected=lambda training: _count(trainer, training),
            is_open=lambda parameter: parameter in opened() if parameter in freezable else parameter.requires_grad,
            ready=lambda: freezer.holds_eval_mode,
            announce=lambda text: rank_zero_info(f"TransferLearning {text}"),
            first=self._first,
        )
        for name, module in _targets(pl_module, freezable):
            FeatureCache(module, name or type(pl_module).__name__, around, optional=module is pl_module)
        self.caches, self._limit = around.caches, limit
        self._whole = False  # whether this epoch has run from its first batch under this phase
        self._known = False  # whether one has before
        self._lost = False  # whether what was kept was lost in it

    def renew(self) -> None:
        """Forget everything, since another phase has begun."""
        self._whole = self._known = self._lost = False
        for cache in self.caches:
            cache.forget()

    def begin_epoch(self) -> None:
        """Count the images of an epoch from here on."""
        self._whole = True
        self.look_again()
        for cache in self.caches:
            cache.hits = cache.misses = cache.losses = 0

    def look_again(self) -> None:
        """Let no change of weights or modules go unnoticed, at the start of each epoch and validation."""
        for cache in self.caches:
            cache.look_again()

    def take_away(self) -> None:
        """Put the forwards back."""
        for cache in self.caches:
            cache.take_away()

    def check_called(self) -> None:
        """Raise RuntimeError if the first training step went past all of them."""
        if not any(cache.called for cache in self.caches):
            names = ", ".join(cache.name for cache in self.caches)
            raise RuntimeError(
                f"`cache_features` must find the front in what `training_step` calls, which is none of {names}. "
                "Call one of them as a module: self.net(x)."
            )

    def check_use(self, trainer: L.Trainer) -> None:
        """Raise RuntimeError, on all ranks, where an epoch after the first of a phase shows that caching is no use."""
        if not self._whole:  # or ended again by a resumed run
            return
        counts = [sum(getattr(cache, name) for cache in self.caches) for name in ("hits", "misses", "losses")]
        summed: Any = trainer.strategy.reduce(
            torch.tensor(counts, dtype=torch.float64, device=trainer.strategy.root_device), reduce_op="sum"
        )
        hits, misses, losses = (int(count) for count in summed)
        if self._lost and losses:
            raise RuntimeError(
                "`cache_features` must be False where the frozen part changes, got weights, statistics or attributes "
                "of it that were others in each of the last two epochs. Train without cache_features."
            )
        # A rank meets, in an epoch after its first, one image of `world_size` again: far fewer are no chance.
        if self._known and not losses and hits < 0.1 / trainer.world_size * (hits + misses):
            raise RuntimeError(
                f"`cache_features` must be False where images change, got {hits} images of {hits + misses} in the last "
                "epoch that had been seen before: augmentation (in the data set, on the batch, mixup), or another "
                "subset in each epoch. Train without cache_features."
            )
        self._whole, self._known, self._lost = False, True, losses > 0

    def _first(self, cache: FeatureCache, x: Tensor) -> None:
        """See before the first step that later phases can be cached, and fit."""

        def look(number: int) -> None:
            try:
                needed = cache.measure(x)
            except CannotCutError as error:
                if cache.optional:
                    return
                raise ValueError(
                    f"`cache_features` must be False where the front of {cache.name} can't be kept, as in phase "
                    f"{number + 1}: {error} Train without it, or mend that."
                ) from error
            if needed > self._limit:
                raise ValueError(
                    f"`cache_limit` must leave room for the features of all images, got "
                    f"{self._limit / 2**30:.4g} GiB, and phase {number + 1} needs {needed / 2**30:.4g} GiB. "
                    "Raise it, let phases freeze up to a later block, or train without cache_features."
                )

        self._survey(look)


def _targets(pl_module: L.LightningModule, freezable: set[nn.Parameter]) -> list[tuple[str, nn.Module]]:
    """The modules whose forwards a step may call: the one that holds everything, else the module and its parts."""
    name, module = "", pl_module
    while True:
        parts = list(_parts(name, module, freezable))
        if len(parts) != 1 or any(p in freezable for p in module.parameters(recurse=False)):
            break
        (name, module) = parts[0]
        if not next(module.children(), None):
            break
    if module is not pl_module:
        return [(name, module)]
    own = [("", pl_module)] if is_overridden("forward", pl_module) else []
    return own + parts


def _parts(name: str, module: nn.Module, freezable: set[nn.Parameter]) -> Iterator[tuple[str, Any]]:
    """Direct parts with a forward and freezable parameters."""
    for key, child in module.named_children():
        if isinstance(child, Metric) or freezable.isdisjoint(child.parameters()):
            continue
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _parts(join(name, key), child, freezable)
        else:
            yield join(name, key), child


def _count(trainer: L.Trainer, training: bool) -> int:
    """Images that one rank will see, 0 if that is unknown."""
    loaders = tree_leaves(trainer.train_dataloader if training else trainer.val_dataloaders)
    try:
        images = sum(len(loader.dataset) for loader in loaders)
    except (AttributeError, TypeError, NotImplementedError):
        return 0
    return images if training else -(-images // trainer.world_size)  # training images are dealt anew in each epoch


def _draws_anew(trainer: L.Trainer) -> bool:
    """Whether the first sample of the training set is another one when it is drawn again; False if it can't be."""
    data = getattr(trainer.train_dataloader, "dataset", None)
    if data is None or isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        return False
    put_back = keep_random_state()
    try:
        one, two = (tree_leaves(data[0]) for _ in range(2))
        return not all(_same(*pair) for pair in zip(one, two, strict=True))
    except Exception:  # the user's own code: the loader will raise it, if it is one
        return False
    finally:
        put_back()


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and one.shape != two.shape:
        return False
    same = (one == two) | ((one != one) & (two != two))  # a NaN differs from itself
    return bool(same.all()) if hasattr(same, "all") else bool(same)
