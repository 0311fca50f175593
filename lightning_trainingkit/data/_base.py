"""The base of the kit's DataModules: loaders over three parts, checks, preprocessing, augmentation."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_trainingkit._lightning import L, refuse_other_package
from lightning_trainingkit.data._lightning import unrepeated
from lightning_trainingkit.data.preprocessing import check_kind, fit_preprocessing, restored_preprocessing
from lightning_trainingkit.data.worker_augmentation import WorkerAugmentation
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation_policies import plain_policy
from lightning_trainingkit.functional.split import stratified_split

__all__ = ["ImageDataModule", "check_labels", "check_path", "even_batches", "split"]

Pair = tuple[Tensor, Tensor]
T = TypeVar("T")


class ImageDataModule(L.LightningDataModule):
    """Serve ``train_set``, ``val_set`` and ``test_set``, which a subclass fills in ``_load``.

    Over several ranks each image of the validation and the test part is evaluated once. All ranks have the same number
    of batches. Only with a very small batch size may some ranks have one more.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    preprocessing: nn.Module
    augmentation: WorkerAugmentation | None = None
    train_set: Dataset[Pair]
    val_set: Dataset[Pair]
    test_set: Dataset[Pair]

    def __init__(self, batch_size: int, val_fraction: float, seed: int, num_workers: int, preprocess: str) -> None:
        super().__init__()
        self.val_fraction = _check.share("val_fraction", val_fraction, "Try 0.1.")
        self.batch_size = _check.integer("batch_size", batch_size, "Try 128.", least=1)
        self.num_workers = _check.integer("num_workers", num_workers, "Use 0 to load in the main process.", least=0)
        self.seed = _check.integer("seed", seed, "It fixes the split: try 0.")
        self.preprocess = check_kind("preprocess", preprocess)
        self._restored: dict[str, Tensor] | None = None
        self._loaded = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainer" and value is not None:
            refuse_other_package(self, value)
        super().__setattr__(name, value)

    def setup(self, stage: str | None = None) -> None:
        """Load, split and measure once. Every rank and every process gets the same parts."""
        if not self._loaded:
            self._load()
            self._loaded = True

    def __getattr__(self, name: str) -> Any:
        """Raise for a part that is not loaded yet, and name ``setup``."""
        loaded = self.__dict__.get("_loaded")
        if name in ("train_set", "val_set", "test_set", "preprocessing") or (name in ("mean", "std") and not loaded):
            kind = type(self).__name__
            raise AttributeError(f"`{name}` must be loaded, got {kind} before its `setup`. Call `setup()` first.")
        if name in ("mean", "std"):
            raise AttributeError(
                f"`{name}` must be of a preprocessing per channel, got preprocess={self.preprocess!r}. "
                "Read the buffers of `preprocessing`."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _load(self) -> None:
        raise NotImplementedError

    def _set_augmentation(self, augment: Any, image_shape: tuple[int, int, int]) -> str | dict[str, Any] | None:
        """Make the augmentation of the training part. Return what a checkpoint keeps of it."""
        plain = None if augment is None else plain_policy("augment", augment)
        if plain not in (None, "none"):
            self.augmentation = WorkerAugmentation(plain, image_shape, self.seed)
        return plain

    def state_dict(self) -> dict[str, Any]:
        """Return the fitted preprocessing, which Lightning keeps in the checkpoint."""
        if not self._loaded:
            return {}
        return {"preprocess": self.preprocess, "preprocessing": dict(self.preprocessing.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Apply the preprocessing of a checkpoint, before or after ``setup``.

        Raises:
            ValueError: If the checkpoint has another preprocessing, or one for images of another shape.
        """
        if "preprocess" not in state_dict:
            return
        kind = state_dict["preprocess"]
        if kind != self.preprocess:
            raise ValueError(
                f"`preprocess` must be {kind!r} as in the checkpoint, got {self.preprocess!r}. "
                f"Set preprocess={kind!r}, or load the weights alone with `load_from_checkpoint`."
            )
        state = state_dict["preprocessing"]
        shape = (self.image_shape[0], 1, 1) if kind in ("channel_mean", "channel") else self.image_shape
        if state and tuple(state["mean"].shape) != shape:
            raise ValueError(
                f"`image_shape` must be {tuple(state['mean'].shape)} as in the checkpoint, got {shape}. "
                "Use images of this shape, or load the weights alone with `load_from_checkpoint`."
            )
        self._restored = state
        if self._loaded:  # in place: the three parts hold this layer
            self.preprocessing.load_state_dict(state)
            self._show_preprocessing()

    def _fit_preprocessing(self, batches: Iterable[Tensor]) -> None:
        """Fit on the images ``(N, C, H, W)`` of the training part, or take the numbers of a checkpoint."""
        if self._restored is not None:
            self.preprocessing = restored_preprocessing(self.preprocess, self._restored)
        else:
            self.preprocessing = fit_preprocessing(batches, self.preprocess)
        self._show_preprocessing()

    def _show_preprocessing(self) -> None:
        """Set ``mean`` and ``std``, where each channel has one of each."""
        channels = self.image_shape[0]
        if self.preprocess == "none":
            self.mean, self.std = [0.0] * channels, [1.0] * channels
        elif self.preprocess in ("channel_mean", "channel"):
            buffers = self.preprocessing.state_dict()
            self.mean, self.std = buffers["mean"].flatten().tolist(), buffers["std"].flatten().tolist()

    def train_dataloader(self) -> DataLoader[Pair]:
        """Return shuffled training batches, augmented if ``augment`` says so."""
        if self.augmentation is not None:
            self.augmentation.follow(self.trainer)
        ranks = self.trainer.world_size if self.trainer is not None else 1
        per_rank = -(-len(self.train_set) // ranks)  # type: ignore[arg-type]
        # A last batch of one image has no variance for a BatchNorm over a 1 x 1 map: torch raises.
        lone = per_rank > self.batch_size > 1 and per_rank % self.batch_size == 1
        return self._loader(self.train_set, shuffle=True, drop_last=lone)

    def val_dataloader(self) -> DataLoader[Pair]:
        """Return validation batches in a fixed order; with several ranks, the batches of this rank."""
        return self._evaluation_loader(self.val_set, "val_set")

    def test_dataloader(self) -> DataLoader[Pair]:
        """Return test batches in a fixed order; with several ranks, the batches of this rank."""
        return self._evaluation_loader(self.test_set, "test_set")

    def predict_dataloader(self) -> DataLoader[Pair]:
        """Return the test batches."""
        return self.test_dataloader()

    def _evaluation_loader(self, part: Dataset[T], name: str) -> DataLoader[T]:
        sampler = unrepeated(part, name, self.trainer)
        if sampler is None:
            return self._loader(part)
        images = len(part)  # type: ignore[arg-type]
        return self._loader(
            part, sampler=sampler, batch_size=even_batches(images, sampler.num_replicas, self.batch_size)
        )

    def _loader(self, part: Dataset[T], batch_size: int | None = None, **options: Any) -> DataLoader[T]:
        return DataLoader(
            part,
            batch_size=batch_size or self.batch_size,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


def even_batches(images: int, ranks: int, batch_size: int) -> int:
    """Largest size up to ``batch_size`` that gives all ranks the same number of batches.

    Some ranks have one image more. A rank with one batch more would wait for ever in a step that synchronises
    (``self.log`` with ``on_step`` and ``sync_dist``, ``all_gather``). If no size above 1 fits, it is ``batch_size``.
    """
    fewest = images // ranks
    if images % ranks == 0:
        return batch_size
    return next((size for size in range(batch_size, 1, -1) if fewest % size), batch_size)


def check_path(name: str, value: Any, hint: str) -> str:
    """Return a path as a string, which any checkpoint can hold. Raise TypeError if it is no path."""
    if not isinstance(value, str | Path):
        raise TypeError(f"`{name}` must be a path, got {value!r}. {hint}")
    return str(value)


def check_labels(targets: Tensor, num_classes: int, source: str | Path) -> None:
    """Raise ValueError if a part is empty or has a label outside ``0 .. num_classes - 1``."""
    if not len(targets):
        raise ValueError(f"`{source}` must hold at least one image, got none. Check the data set.")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= num_classes:
        rule = f"labels in 0 .. {num_classes - 1}"
        raise ValueError(f"`{source}` must hold {rule}, got labels from {low} to {high}. Get the data set again.")


def split(targets: Tensor, argument: str, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of two parts, stratified by class, the same on every rank.

    Raises:
        ValueError: If a part would be empty.
    """
    first, second = stratified_split(targets, fraction, torch.Generator().manual_seed(seed))
    if not len(first) or not len(second):
        raise ValueError(
            f"`{argument}` must leave images in both parts, got {fraction} of {len(targets)} images. "
            "Change it, or give the training set more images."
        )
    return first, second
