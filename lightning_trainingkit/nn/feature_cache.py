"""Keep what the frozen front of a model says of each image, and go on from there."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional.content_keys import content_keys
from lightning_trainingkit.nn.feature_store import FeatureStore, StoreFullError, row_bytes
from lightning_trainingkit.nn.frozen_front import CannotCutError, FrozenFront, find_front

__all__ = ["FeatureCache"]


class FeatureCache:
    """Stands in the place of a module's forward until it is taken away.

    An image is known by its content, so that it does not matter in which order or with which loader it comes; one that
    changes from epoch to epoch is a new one each time. The front is cut for training and for evaluation, each with
    rows of its own. Where the front's parameters have changed, the rows are forgotten; where others stand in their
    place for a while, and where the input needs a gradient, the forward runs as it is.

    Args:
        module: The module. Its forward takes one tensor, images first.
        name: What the user calls it.
        limit: Most bytes that the rows may take.
        folder: Where to keep them in a mapped file; None keeps them in memory, on the images' device.
        expected: Number of images to make room for, by mode: training or not; 0 where that is unknown.
        announce: Is told in words what will be kept, when it is known.
        first: Is given the first training images, before anything is kept.
        running: Shared by all caches of a model: those inside another one's module let the forward run.
        optional: Whether to let the forward run, and not to complain, where it can't be cut.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        limit: int,
        folder: Path | None,
        expected: Callable[[bool], int],
        announce: Callable[[str], None],
        first: Callable[["FeatureCache", Tensor], None],
        running: set["FeatureCache"],
        optional: bool = False,
    ) -> None:
        self.module, self.name, self.limit, self.expected, self.announce = module, name, limit, expected, announce
        self._first: Callable[[FeatureCache, Tensor], None] | None = first
        self._running, self.optional, self._gone = running, optional, False
        self.called = False
        self.hits = self.misses = 0
        """Images of training that were known, and that were not."""
        self._stores = {mode: FeatureStore(limit, folder) for mode in (True, False)}
        self._fronts: dict[bool, FrozenFront | None] = {}
        self._ignored: set[tuple[nn.Module, str]] = set()
        self._versions: dict[bool, int] = {}
        self._found = vars(module).get("forward")
        self._forward = inner = module.forward

        @wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._run(args, kwargs)

        self._ours = forward
        vars(module)["forward"] = forward

    def take_away(self) -> None:
        """Put back the forward that stood there, and forget everything."""
        if vars(self.module).get("forward") is self._ours:
            del vars(self.module)["forward"]
            if self._found is not None:
                vars(self.module)["forward"] = self._found
        self._gone = True  # whoever has wrapped ours since calls the forward through it
        self.forget()

    def forget(self) -> None:
        """Forget all rows and cuts, since other parameters train now."""
        self._fronts, self._ignored = {}, set()
        for store in self._stores.values():
            store.clear()

    def measure(self, x: Tensor) -> int:
        """Bytes that the training images would take, cut as the module is now; 0 if nothing could be kept.

        Raises:
            CannotCutError: If the forward can't be cut.
        """
        front = find_front(self.module, x[:2], self._forward)
        if front is None:
            return 0
        with torch.no_grad():
            return row_bytes(front.front(x[:1])) * self.expected(True)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._gone or self._running:
            return self._forward(*args, **kwargs)
        self.called = True
        if kwargs or len(args) != 1 or not isinstance(args[0], Tensor) or args[0].ndim < 2 or not len(args[0]):
            given = ", ".join([*(type(each).__name__ for each in args), *kwargs])
            raise TypeError(
                f"`cache_features` must be False where {self.name} is not called with one tensor of images, "
                f"got a call with ({given})."
            )
        x = args[0]
        self._running.add(self)
        try:
            if self._first is not None and self.module.training:
                first, self._first = self._first, None
                first(self, x)
            front = self._front(x)
            if front is not None and front.in_place() and not (x.requires_grad and torch.is_grad_enabled()):
                return front.rest(x, *self._features(front, x))
        finally:
            self._running.discard(self)
        return self._forward(x)

    def _front(self, x: Tensor) -> FrozenFront | None:
        training = self.module.training
        known = self._fronts.get(training)
        changed = known.changed() if known is not None else set()
        if training in self._fronts and not changed:
            return known
        try:
            front = find_front(self.module, x[:2], self._forward, self._ignored)
        except CannotCutError as error:
            if self.optional:
                self._fronts[training] = None
                return None
            raise ValueError(
                f"`cache_features` must be False where the front of {self.name} can't be kept: {error} "
                "Train without it, or mend that."
            ) from error
        if known is not None and front is not None and front.code == known.code:
            self._ignored |= changed  # a counter, say
        if known is None or front is None or front.code[0] != known.code[0]:
            self._stores[training].clear()
        self._fronts[training] = front
        if front is not None:
            self._versions[training] = front.version()
        return front

    def _features(self, front: FrozenFront, x: Tensor) -> tuple[Tensor, ...]:
        training = self.module.training
        store = self._stores[training]
        if (version := front.version()) != self._versions[training]:
            store.clear()
            self._versions[training] = version
        keys = [tuple(pair) for pair in content_keys(x).tolist()]
        missing = [row for row, key in enumerate(keys) if key not in store.rows]
        if training:
            self.misses += len(missing)
            self.hits += len(keys) - len(missing)
        if not missing:
            return store.take(keys, x.device)
        with torch.no_grad():
            some = x if len(missing) == len(keys) else x[torch.tensor(missing, device=x.device)]
            features = front.front(some.detach().clone())
        self._add(front, [keys[row] for row in missing], features)
        return tuple(features) if len(missing) == len(keys) else store.take(keys, x.device)

    def _add(self, front: FrozenFront, keys: list[tuple[int, ...]], features: tuple[Tensor, ...]) -> None:
        training = self.module.training
        store, other = self._stores[training], self._stores[not training]
        store.limit = self.limit - other.bytes
        if not len(store):
            size, count = row_bytes(features), self.expected(training)
            shapes = " and ".join(f"{'x'.join(map(str, each.shape[1:])) or 1} {each.dtype}" for each in features)
            kind = "training" if training else "evaluation"
            where = f"in a file below {store.folder}" if store.folder else f"in memory ({features[0].device})"
            self.announce(
                f"keeps what {self.name} says of each image after {', '.join(front.end)} in {kind}: "
                f"{shapes.replace('torch.', '')}, {size / 2**10:.4g} KiB x {count or 'an unknown number of'} images = "
                f"{f'{count * size / 2**20:.4g} MiB' if count else 'as much as comes'} {where}; "
                f"limit {self.limit / 2**30:.4g} GiB"
            )
            if count * size > store.limit:
                self._full(count, size)
            store.reserve(features, count)
        try:
            store.add(keys, features)
        except StoreFullError:
            self._full(len(store) + len(keys), row_bytes(features))

    def _full(self, count: int, size: int) -> None:
        raise ValueError(
            f"`cache_limit` must leave room for the features of all images, got {self.limit / 2**30:.4g} GiB, and "
            f"{count} images with {size / 2**10:.4g} KiB each need {count * size / 2**30:.4g} GiB. "
            "Raise it, keep them on disk (cache_features='disk'), or train without cache_features. "
            "Images that augmentation changes are new ones in each epoch."
        )
