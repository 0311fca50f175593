"""Any folder of images, one subfolder per class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit.data._base import ImageDataModule, Pair, fit_normalisation, split
from lightning_trainingkit.functional import _check

__all__ = ["ImageFolderDataModule"]

Sample = tuple[str, int]


class ImageFolderDataModule(ImageDataModule):
    """Colour images from ``ROOT/CLASS/*.png`` or ``ROOT/{train,val,test}/CLASS/*.png``, of one size.

    The shorter side is resized to ``image_size``, then the centre is cut out. A ``val`` or ``test`` folder that is not
    there is split from the training images, by class; the test part first. Images are normalised by mean and standard
    deviation of the training part, measured in one pass of constant memory.

    Args:
        data_dir: The folder ``ROOT``. Classes are numbered by the alphabet.
        image_size: Height and width in pixels.
        batch_size: Images per batch and rank.
        val_fraction: Share of the training images that validates, where there is no ``val`` folder.
        test_fraction: Share of the training images that tests, where there is no ``test`` folder.
        mean: Mean of red, green and blue in ``[0, 1]``, in place of the measured one; saves a pass over the images.
        std: The standard deviations, given if and only if ``mean`` is.
        seed: Fixes the splits.
        num_workers: Processes that decode images.

    Raises:
        FileNotFoundError: If ``data_dir`` holds no class folder.
        ValueError: If an argument is outside its range, a part has no images or unknown classes, or a file cannot be
            read, which the error names.

    Example:
        >>> data = ImageFolderDataModule("flowers", image_size=64)  # doctest: +SKIP
        >>> data.num_classes, data.image_shape  # doctest: +SKIP
        (5, (3, 64, 64))
    """

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
    ) -> None:
        super().__init__(batch_size, val_fraction, seed, num_workers)
        data_dir = str(data_dir)
        self.save_hyperparameters()
        _check.share("test_fraction", test_fraction, "Try 0.1.")
        _check.integer("image_size", image_size, "Try 224.", least=1)
        if (mean is None) != (std is None) or any(len(given) != 3 for given in (mean, std) if given is not None):
            raise ValueError(
                f"`mean` and `std` must both be three numbers or both be None, got {mean} and {std}. Give both."
            )
        self.data_dir = Path(data_dir)
        self.image_shape = (3, image_size, image_size)
        self.test_fraction = test_fraction
        self._given = None if mean is None or std is None else (mean, std)
        self._train_dir = self.data_dir / "train" if _class_names(self.data_dir / "train") else self.data_dir
        self.classes = _class_names(self._train_dir)
        if not self.classes:
            raise FileNotFoundError(
                f"`data_dir` must hold one folder per class, got none in {self._train_dir}. "
                "Put the images into ROOT/CLASS/ or ROOT/{train,val,test}/CLASS/."
            )
        if len(self.classes) == 1:
            raise ValueError(
                f"`data_dir` must hold a folder for each of at least two classes, got {self.classes[0]} alone in "
                f"{self._train_dir}. Put each class into its own folder."
            )
        self.num_classes = len(self.classes)

    def _load(self) -> None:
        train = self._samples(self._train_dir)
        parts = {"val": self.val_fraction, "test": self.test_fraction}
        served: dict[str, list[Sample]] = {}
        for part in ("test", "val"):
            folder = self.data_dir / part
            if self._train_dir != self.data_dir and folder.is_dir():
                served[part] = self._samples(folder)
            else:
                targets = torch.tensor([target for _, target in train])
                rest, taken = split(targets, f"{part}_fraction", parts[part], self.seed)
                served[part] = [train[i] for i in taken.tolist()]
                train = [train[i] for i in rest.tolist()]
        _check_headers(train + served["val"] + served["test"])
        size = self.image_shape[1]
        self.mean, self.std = self._given or fit_normalisation(_decode(path, size)[None] for path, _ in train)
        self.train_set = FolderImages(train, size, self.mean, self.std)
        self.val_set = FolderImages(served["val"], size, self.mean, self.std)
        self.test_set = FolderImages(served["test"], size, self.mean, self.std)

    def _samples(self, folder: Path) -> list[Sample]:
        unknown = sorted(set(_class_names(folder)) - set(self.classes))
        if unknown:
            raise ValueError(
                f"`{folder}` must hold classes of {self._train_dir} only, got {unknown}. Rename or remove them."
            )
        numbers = {name: number for number, name in enumerate(self.classes)}
        samples = make_dataset(folder, numbers, extensions=IMG_EXTENSIONS, allow_empty=True)
        if not samples:
            raise ValueError(f"`{folder}` must hold images ({', '.join(IMG_EXTENSIONS)}), got none. Put some in.")
        return list(samples)


class FolderImages(Dataset[Pair]):
    """Decode, resize, cut and normalise image files, one at a time."""

    def __init__(self, samples: Sequence[Sample], image_size: int, mean: list[float], std: list[float]) -> None:
        self.samples, self.image_size, self.mean, self.std = samples, image_size, mean, std

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Pair:
        path, target = self.samples[index]
        x = F.to_dtype(_decode(path, self.image_size), torch.float32, scale=True)
        return F.normalize(x, self.mean, self.std), torch.tensor(target)


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _check_headers(samples: list[Sample]) -> None:
    for path, _ in samples:
        try:
            Image.open(path).close()
        except OSError as error:
            raise ValueError(f"`{path}` must be a readable image, got {error}. Remove or replace the file.") from error


def _decode(path: str, image_size: int) -> Tensor:
    """Read one file as bytes ``(3, image_size, image_size)``."""
    try:
        with Image.open(path) as file:
            # Pillow warns of a palette with transparency on the way to RGB, not to RGBA.
            image = (file.convert("RGBA") if "transparency" in file.info else file).convert("RGB")
    except (OSError, SyntaxError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise ValueError(f"`{path}` must be a readable image, got {error}. Remove or replace the file.") from error
    cut: Tensor = F.pil_to_tensor(v2.CenterCrop(image_size)(v2.Resize(image_size)(image)))
    return cut
