"""Any folder of images, one subfolder per class."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import ImageColor
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_trainingkit._lightning import rank_zero_info
from lightning_trainingkit.data._base import ImageDataModule, Pair, check_path, split
from lightning_trainingkit.data.folder_images import FolderImages, Sample, UnlabelledImages
from lightning_trainingkit.data.image_files import ImageReader, read_all
from lightning_trainingkit.data.image_tree import Skipped, class_names, find_parts, images_below, list_folder
from lightning_trainingkit.data.policies import longest_side
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.augmentation import Augmentation
from lightning_trainingkit.nn.layers.standardize import Standardize

__all__ = ["ImageFolderDataModule"]


class ImageFolderDataModule(ImageDataModule):
    """Colour images from ``ROOT/CLASS/*.png`` or ``ROOT/{train,val,test}/CLASS/*.png``, of one size.

    - **Images** are turned upright (EXIF), the shorter side is resized to ``image_size``, then the centre is cut out.
    - **A missing** ``val`` **or** ``test`` **folder** is split from the training images, by class, the test part first.
    - **A** ``test`` **folder without classes** is read by ``predict`` as images without labels, in the order of names.
    - **Preprocessing** is fitted on the training part in one pass, by default mean and standard deviation.
    - **Formats**: all that Pillow itself decodes; the first of several frames, the upper 8 bits of colours of 16 bits.
    - **Skipped files**, such as hidden ones, are counted in one line.

    Usual names of the parts (``Valid``, ``dev``, ``testing``) are known. README.md in this folder tells more.

    Args:
        data_dir: The folder ``ROOT``. Classes are numbered by the alphabet.
        image_size: Height and width in pixels.
        batch_size: Images per batch and rank.
        val_fraction: Share of the training images for validation, if there is no ``val`` folder.
        test_fraction: Share of the training images for the test, if there is no ``test`` folder with classes.
        mean: Mean of red, green and blue in ``[0, 1]``, in place of the measured mean. Saves a pass over the images.
        std: The standard deviations, given if and only if ``mean`` is.
        seed: Fixes the splits.
        num_workers: Processes that decode images.
        background: Colour behind transparent pixels, by name (``white``) or as ``#rrggbb``.
        value_range: Values of grey images with more than 8 bits that become 0 and 1; values outside are clipped. None:
            0 and 65,535 for 16 bits, and an error for images of 32 bits and floats.
        preprocess: ``none``, ``mean_image``, ``channel_mean``, ``channel`` (mean and standard deviation), ``pca``,
            ``pca_whitening`` or ``zca``; the last three for images of at most 3,072 values.
        augment: How training images are changed at random: a policy by name, an ``Augmentation``, or its ranges by
            name as a dict. None: not at all. README.md in this folder lists the policies.

    Raises:
        FileNotFoundError: If ``data_dir`` holds no class folder.
        ValueError: If an argument is outside its range, a part or a class has no images, or a part has unknown classes.
            If files can't be used; the error names them.
        TypeError: If an argument has another type.

    Example:
        >>> data = ImageFolderDataModule("flowers", image_size=64)  # doctest: +SKIP
        >>> data.num_classes, data.image_shape  # doctest: +SKIP
        (5, (3, 64, 64))
    """

    predict_set: Dataset[Tensor] | None = None
    """The unlabelled images of a test folder without classes, or None."""

    def __init__(
        self,
        data_dir: str,
        image_size: int = 224,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        seed: int = 0,
        num_workers: int = 0,
        background: str = "black",
        value_range: tuple[float, float] | None = None,
        preprocess: str = "channel",
        augment: str | Augmentation | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, val_fraction, seed, num_workers, preprocess)
        data_dir = check_path("data_dir", data_dir, "Give the folder that holds the classes.")
        image_size = _check.integer("image_size", image_size, "Try 224.", least=1)
        augment = self._set_augmentation(augment, (3, image_size, image_size))
        self.save_hyperparameters()
        self.test_fraction = _check.share("test_fraction", test_fraction, "Try 0.1.")
        self._given = _normalisation(mean, std, preprocess)
        self._reader = ImageReader(image_size, _colour(background), _limits(value_range))
        self.image_shape = (3, image_size, image_size)
        self.data_dir = Path(data_dir)
        self._folders = find_parts(self.data_dir)
        train = self._folders["train"]
        self.classes = class_names(train)
        if not self.classes:
            raise FileNotFoundError(
                f"`data_dir` must hold one folder per class, got none in {train}. "
                "Put the images into ROOT/CLASS/ or ROOT/{train,val,test}/CLASS/."
            )
        if len(self.classes) == 1:
            raise ValueError(
                f"`data_dir` must hold a folder for each of at least two classes, got {self.classes[0]} alone in "
                f"{train}. Put each class into its own folder."
            )
        self.num_classes = len(self.classes)

    def predict_dataloader(self) -> DataLoader[Tensor] | DataLoader[Pair]:  # type: ignore[override]
        """Return the images of a test folder without classes, or the test batches."""
        if self.predict_set is None:
            return self.test_dataloader()
        return self._evaluation_loader(self.predict_set, "predict_set")

    def _load(self) -> None:
        skipped = Skipped()
        train = self._samples("train", skipped)
        parts = {"val": self.val_fraction, "test": self.test_fraction}
        unlabelled = self._unlabelled()
        served: dict[str, list[Sample]] = {}
        for part in ("test", "val"):
            if part in self._folders and not (part == "test" and unlabelled):
                served[part] = self._samples(part, skipped)
            else:
                targets = torch.tensor([target for _, target in train])
                rest, taken = split(targets, f"{part}_fraction", parts[part], self.seed)
                served[part] = [train[i] for i in taken.tolist()]
                train = [train[i] for i in rest.tolist()]
        self._say(skipped, len(unlabelled))
        every = [path for path, _ in train + served["val"] + served["test"]] + unlabelled
        reader = self._reader
        if self.augmentation is not None and self.augmentation.whole:  # it makes larger images, to cut from them
            reader = replace(reader, size=longest_side(reader.size))
        for _ in read_all(every, reader.check):
            pass
        self._prepare(path for path, _ in train)
        self.train_set = FolderImages(train, reader, self.preprocessing, self.augmentation)
        self.val_set, self.test_set = (
            FolderImages(served[part], self._reader, self.preprocessing) for part in ("val", "test")
        )
        if unlabelled:
            self.predict_set = UnlabelledImages(unlabelled, self._reader, self.preprocessing)

    def _prepare(self, train: Iterable[str]) -> None:
        """Fit the preprocessing on the training images, unless the numbers are given."""
        if self._given is None or self._restored is not None:
            self._fit_preprocessing(x[None] for x in read_all(train, self._reader.decode))
        else:
            self.mean, self.std = self._given
            self.preprocessing = Standardize(self.mean, self.std)

    def _samples(self, part: str, skipped: Skipped) -> list[Sample]:
        folder = self._folders[part]
        names = class_names(folder)
        unknown = sorted(set(names) - set(self.classes))
        if unknown:
            raise ValueError(
                f"`{folder}` must hold classes of {self._folders['train']} only, got {unknown}. Rename or remove them."
            )
        folders, images = list_folder(folder, skipped)
        skipped.read_already += len(folders) - len(names)
        skipped.outside += images
        found = {name: images_below(folder / name, skipped) for name in names}
        empty = [name for name, paths in found.items() if not paths]
        if not any(found.values()) or (empty and part == "train"):
            what = (
                f"images of each class, got none of {', '.join(empty)}" if names else "one folder per class, got none"
            )
            raise ValueError(
                f"`{folder}` must hold {what}. Put images there, in a format that Pillow decodes, or remove the folder."
                + (f" Passed over: {skipped}." if str(skipped) else "")
            )
        return [(path, self.classes.index(name)) for name, paths in found.items() for path in paths]

    def _unlabelled(self) -> list[str]:
        """Images of a test folder without class folders, or of its only subfolder, ``images`` or ``test``."""
        folder = self._folders.get("test")
        names = [] if folder is None else class_names(folder)
        if folder is None or len(names) > 1 or not {*names} <= {"images", folder.name} - {*self.classes}:
            return []
        folder = folder / names[0] if names else folder
        return [str(folder / name) for name in list_folder(folder, Skipped())[1]]

    def _say(self, skipped: Skipped, unlabelled: int) -> None:
        if self._folders["train"] != self.data_dir:
            folders, images = list_folder(self.data_dir, skipped)
            known = {folder.name for folder in self._folders.values()}
            skipped.outside += [name for name in folders if name not in known] + images
        if unlabelled:
            rank_zero_info(f"{self._folders['test']} has no classes: its {unlabelled:,} images are for predict alone.")
        if str(skipped):
            rank_zero_info(f"ImageFolderDataModule passes over in {self.data_dir}: {skipped}.")


def _normalisation(
    mean: list[float] | None, std: list[float] | None, preprocess: str
) -> tuple[list[float], list[float]] | None:
    if mean is None and std is None:
        return None
    if preprocess != "channel":
        raise ValueError(
            f"`preprocess` must be 'channel' where `mean` and `std` are given, got {preprocess!r}. "
            "Leave the numbers out."
        )
    hint = "Give three numbers for each, or leave both out."
    given: tuple[Any, Any] = (mean, std)
    for numbers in given:
        if not isinstance(numbers, Sequence) or isinstance(numbers, str) or len(numbers) != 3:
            raise ValueError(
                f"`mean` and `std` must both be three numbers or both be None, got {mean} and {std}. Give both."
            )
    return (
        [_check.number("mean", value, hint) for value in mean or ()],
        [_check.number("std", value, hint, above=0) for value in std or ()],
    )


def _colour(background: str) -> tuple[int, int, int]:
    hint = "Try 'white' or '#808080'."
    if not isinstance(background, str):
        raise TypeError(f"`background` must be the name of a colour, got {background!r}. {hint}")
    try:
        red, green, blue, *alpha = ImageColor.getrgb(background)
    except ValueError as error:
        raise ValueError(f"`background` must be the name of a colour, got {background!r}. {hint}") from error
    if alpha:
        raise ValueError(f"`background` must be a colour without transparency, got {background!r}. {hint}")
    return red, green, blue


def _limits(value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    if value_range is None:
        return None
    hint = "Give the values that become 0 and 1: (0, 4095), say."
    if not isinstance(value_range, Sequence) or isinstance(value_range, str) or len(value_range) != 2:
        raise TypeError(f"`value_range` must be two numbers, got {value_range!r}. {hint}")
    low, high = (_check.number("value_range", value, hint) for value in value_range)
    if low >= high:
        raise ValueError(f"`value_range` must rise, got {value_range}. {hint}")
    return low, high
