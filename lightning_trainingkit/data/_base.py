"""The base of the kit's DataModules: loaders over three parts, checks, normalisation."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_trainingkit._lightning import L, refuse_other_package
from lightning_trainingkit.data._lightning import unrepeated
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.split import stratified_split

__all__ = ["ImageDataModule", "check_labels", "check_path", "even_batches", "fit_normalisation", "split"]

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
    train_set: Dataset[Pair]
    val_set: Dataset[Pair]
    test_set: Dataset[Pair]

    def __init__(self, batch_size: int, val_fraction: float, seed: int, num_workers: int) -> None:
        super().__init__()
        self.val_fraction = _check.share("val_fraction", val_fraction, "Try 0.1.")
        self.batch_size = _check.integer("batch_size", batch_size, "Try 128.", least=1)
        self.num_workers = _check.integer("num_workers", num_workers, "Use 0 to load in the main process.", least=0)
        self.seed = _check.integer("seed", seed, "It fixes the split: try 0.")
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
        if name in ("train_set", "val_set", "test_set"):
            kind = type(self).__name__
            raise AttributeError(f"`{name}` must be loaded, got {kind} before its `setup`. Call `setup()` first.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _load(self) -> None:
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Pair]:
        """Return shuffled training batches."""
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


def fit_normalisation(batches: Iterable[Tensor]) -> tuple[list[float], list[float]]:
    """Measure mean and standard deviation per channel in one pass over batches ``(N, C, H, W)`` of floats or bytes.

    Bytes count as ``[0, 1]``. A constant channel has standard deviation 1, as in scikit-learn's StandardScaler.
    """
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        x = batch.double() / (255 if batch.dtype == torch.uint8 else 1)
        count += x.numel() // x.shape[1]
        total = total + x.sum(dim=(0, 2, 3))
        square = square + x.square().sum(dim=(0, 2, 3))
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    return mean.tolist(), torch.where(std > 1e-6, std, 1.0).tolist()
