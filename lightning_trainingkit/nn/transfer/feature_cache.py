"""Keep what the frozen front of a model says of each image, and go on from there."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional.content_keys import content_keys
from lightning_trainingkit.nn.structure.bypass import are_caches_bypassed
from lightning_trainingkit.nn.transfer.feature_store import FeatureStore, Key, StoreFullError, row_bytes
from lightning_trainingkit.nn.transfer.frozen_front import CannotCutError, FrozenFront, find_front, says_the_same

__all__ = ["FeatureCache", "CacheContext"]


@dataclass
class CacheContext:
    """What the caches of one model share.

    Args:
        limit: Most bytes that all rows may take.
        folder: Where to keep them in mapped files; None keeps them in memory, on the images' device.
        training: Whether the images that come are those of training.
        expected: Number of images to make room for, those of training or others; 0 where that is unknown.
        is_open: Which parameters train in this phase.
        ready: Whether all that is frozen is in eval mode; else the forward runs as it is.
        announce: Is told in words what will be kept, when it is known.
        first: Is given a cache and its first training images, before anything is kept.
        caches: All of them. Those inside the module of a running one let the forward run.
    """

    limit: int
    folder: Path | None
    training: Callable[[], bool]
    expected: Callable[[bool], int]
    is_open: Callable[[nn.Parameter], bool]
    ready: Callable[[], bool]
    announce: Callable[[str], None]
    first: Callable[["FeatureCache", Tensor], None]
    caches: list["FeatureCache"] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What all rows take."""
        return sum(mode.store.bytes for cache in self.caches for mode in cache.modes.values())


@dataclass
class _Mode:
    """The cut in one mode of the module and of autocast, and its rows of training or of other images."""

    store: FeatureStore
    known: bool = False
    front: FrozenFront | None = None
    version: int = 0
    content: tuple[int, ...] = ()
    look_again: bool = False


class FeatureCache:
    """Stands in the place of a module's forward until it is taken away.

    An image is known by its content, so that it does not matter in which order or with which loader it comes; one that
    changes from epoch to epoch is a new one each time. The front is cut for training and for evaluation, and by the
    module's mode and autocast, each with rows of its own; they are forgotten where the front's tensors or the
    attributes of its modules have changed. Where other tensors stand in their place for a while, where what is frozen
    is in training mode, where the front or the input needs a gradient, and in ``caches_bypassed``, the forward runs as
    it is.

    Args:
        module: The module. Its forward takes one tensor, images first, and else no more than its defaults.
        name: What the user calls it.
        around: What it shares with the other caches of the model.
        optional: Whether to let the forward run, and not to complain, where it can't be cut.
    """

    def __init__(self, module: nn.Module, name: str, around: CacheContext, optional: bool = False) -> None:
        self.module, self.name, self.around, self.optional = module, name, around, optional
        self.called = self.running = self.gone = False
        self.hits = self.misses = self.losses = 0
        """Images of training that were known, that were not, and how often all were forgotten."""
        self.modes: dict[tuple[bool, bool, torch.dtype | None], _Mode] = {}
        self._surveyed = False
        self._found = vars(module).get("forward")
        self.forward = module.forward
        self._signature = inspect.signature(self.forward)
        self._ours = _InPlace(self)
        vars(module)["forward"] = self._ours
        around.caches.append(self)

    def take_away(self) -> None:
        """Put back the forward that stood there, and forget everything."""
        if vars(self.module).get("forward") is self._ours:
            del vars(self.module)["forward"]
            if self._found is not None:
                vars(self.module)["forward"] = self._found
        self.gone = True  # whoever has wrapped ours since calls the forward through it
        self.forget()

    def forget(self) -> None:
        """Forget all rows and cuts, since other parameters train now."""
        for mode in self.modes.values():
            mode.known, mode.front = False, None
            mode.store.clear()

    def look_again(self) -> None:
        """Cut anew and compare the front's tensors at the next call: a change may not show by itself."""
        for mode in self.modes.values():
            mode.look_again = True

    def measure(self, x: Tensor) -> int:
        """Bytes that all images would take, cut as the module is now; 0 if nothing could be kept.

        Raises:
            CannotCutError: If the forward can't be cut.
        """
        front = find_front(self.module, x[:2], self.forward, self.around.is_open)
        if front is None:
            return 0
        with torch.no_grad():
            return row_bytes(front.front(x[:1])) * (self.around.expected(True) + self.around.expected(False))

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the module's forward returns, from what is kept of the images where there is something."""
        asleep = self.gone or are_caches_bypassed() or not self.around.ready()
        if asleep or any(cache.running for cache in self.around.caches):
            return self.forward(*args, **kwargs)
        self.called = True
        x = self._images(args, kwargs)
        training = self.around.training()
        key = training, self.module.training, _autocast_dtype(x)
        if key not in self.modes:
            self.modes[key] = _Mode(FeatureStore(self.around.limit, self.around.folder))
        mode = self.modes[key]
        self.running = True
        try:
            if not self._surveyed and training:
                self._surveyed = True
                self.around.first(self, x)
            front = self._front(mode, x)
            if front is not None and front.in_place() and not (x.requires_grad and torch.is_grad_enabled()):
                return front.rest(x, *self._features(mode, front, x))
        finally:
            self.running = False
        return self.forward(x)

    def _images(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The first argument of a call in which all others are their defaults."""
        x, plain = args[0] if args else None, True
        if kwargs or len(args) > 1:
            (first, *others) = self._signature.parameters.values()
            bound = self._signature.bind(*args, **kwargs).arguments
            x = None if first.kind is first.KEYWORD_ONLY else bound.pop(first.name, None)
            plain = all(_is_default(bound[each.name], each.default) for each in others if each.name in bound)
        if not plain or not isinstance(x, Tensor) or x.ndim < 2 or not len(x):
            names = ", ".join([*(type(each).__name__ for each in args), *kwargs])
            raise TypeError(
                f"`cache_features` must be False where {self.name} is not called with one tensor of images, "
                f"got a call with ({names})."
            )
        return x

    def _front(self, mode: _Mode, x: Tensor) -> FrozenFront | None:
        known = mode.front
        changed = known.changed() if known is not None else set()
        look_again = known is not None and (mode.look_again or known.replaced())
        if mode.known and not changed and not look_again:
            return known
        try:
            front = find_front(self.module, x[:2], self.forward, self.around.is_open, tried=None if changed else known)
        except CannotCutError as error:
            if self.optional:
                mode.known, mode.front = True, None
                return None
            raise ValueError(
                f"`cache_features` must be False where the front of {self.name} can't be kept: {error} "
                "Train without it, or mend that."
            ) from error
        # What a traced module's attributes do to the front is in its code.
        same = known is not None and front is not None and front.code[0] == known.code[0] and changed <= front.traced
        if not same:
            self._clear(mode)
        mode.known, mode.front, mode.version = True, front, -1  # it may hold other tensors: compare them
        return front

    def _features(self, mode: _Mode, front: FrozenFront, x: Tensor) -> tuple[Tensor, ...]:
        version, looks = front.version(), mode.look_again
        if version != mode.version or mode.look_again or not mode.content:
            content = front.content()
            if content != mode.content:
                self._clear(mode)
            mode.version, mode.content, mode.look_again = version, content, False
        kind = (tuple(x.shape[1:]), x.dtype)
        keys: list[Key] = [(kind, *pair) for pair in content_keys(x).tolist()]
        if looks:
            self._compare(mode, front, x, keys)
        missing = [row for row, key in enumerate(keys) if key not in mode.store.rows]
        if self.around.training():
            self.misses += len(missing)
            self.hits += len(keys) - len(missing)
        if not missing:
            return mode.store.take(keys, x.device)
        with torch.no_grad():
            some = x if len(missing) == len(keys) else x[torch.tensor(missing, device=x.device)]
            features = front.front(some.detach().clone())
        self._add(mode, front, [keys[row] for row in missing], features)
        return tuple(features) if len(missing) == len(keys) else mode.store.take(keys, x.device)

    @torch.no_grad()
    def _compare(self, mode: _Mode, front: FrozenFront, x: Tensor, keys: list[Key]) -> None:
        """Forget all rows if the front now says something else of an image: it may read state that nothing shows."""
        known = [row for row, key in enumerate(keys) if key in mode.store.rows][:2]
        if known:
            anew = front.said if known == [0, 1] else None  # of the first two, when the forward was cut
            if anew is None:
                anew = front.front(x[torch.tensor(known, device=x.device)].detach().clone())
            kept = mode.store.take([keys[row] for row in known], x.device)
            if not says_the_same(anew, kept):
                self._clear(mode)

    def _clear(self, mode: _Mode) -> None:
        self.losses += self.around.training() and len(mode.store) > 0
        mode.store.clear()

    def _add(self, mode: _Mode, front: FrozenFront, keys: list[Key], features: tuple[Tensor, ...]) -> None:
        store, training = mode.store, self.around.training()
        store.limit = self.around.limit - (self.around.bytes - store.bytes)
        if not len(store):
            size, count = row_bytes(features), self.around.expected(training)
            shapes = " and ".join(f"{'x'.join(map(str, each.shape[1:])) or 1} {each.dtype}" for each in features)
            kind = "training" if training else "evaluation"
            where = f"in a file below {store.folder}" if store.folder else f"in memory ({features[0].device})"
            self.around.announce(
                f"keeps what {self.name} says of each image after {', '.join(front.end)} in {kind}: "
                f"{shapes.replace('torch.', '')}, {size / 2**10:.4g} KiB x {count or 'an unknown number of'} images = "
                f"{f'{count * size / 2**20:.4g} MiB' if count else 'as much as comes'} {where}; "
                f"limit {self.around.limit / 2**30:.4g} GiB"
            )
            if count * size > store.limit:
                self._full(count, size)
            store.reserve(features, count)
        if not store.fits(features):
            raise ValueError(
                f"`cache_features` must be False where images have several sizes, got features of {self.name} that "
                f"differ in shape, now {[tuple(each.shape[1:]) for each in features]}. Bring the images to one size."
            )
        try:
            store.add(keys, features)
        except StoreFullError:
            self._full(len(store) + len(keys), row_bytes(features))

    def _full(self, count: int, size: int) -> None:
        raise ValueError(
            f"`cache_limit` must leave room for the features of all images, got {self.around.limit / 2**30:.4g} GiB, "
            f"and {count} images with {size / 2**10:.4g} KiB each need {count * size / 2**30:.4g} GiB. "
            "Raise it, keep them on disk (cache_features='disk'), or train without cache_features. "
            "Images that augmentation changes are new ones in each epoch."
        )


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _is_default(value: Any, default: Any) -> bool:
    plain = isinstance(value, bool | int | float | str) and type(value) is type(default)
    return value is default or (plain and value == default)


class _InPlace:
    """The forward that stands in the module; copies of the module get their own forward back."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self.__wrapped__ = cache.forward  # what `inspect.signature` looks at

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.cache.run(args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        own = memo.get(id(self.cache.module))
        if own is None or self.cache._found is not None:
            return copy.deepcopy(self.cache.forward, memo)
        return _own_forward(own)

    def __reduce__(self) -> Any:
        if self.cache._found is not None:
            return copy.copy, (self.cache._found,)
        return _own_forward, (self.cache.module,)


def _own_forward(module: nn.Module) -> Any:
    return MethodType(type(module).forward, module)
