"""Read an image file as a square of three colours, or raise an error with the reason."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageFile
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

__all__ = ["ImageReader", "extensions", "read_all"]

S = TypeVar("S")
T = TypeVar("T")

# Stubs without a decoder, formats for which Pillow starts a program (Ghostscript), and a format that holds any other.
_NO_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_ORIENTATION = 274  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONGEST = 100  # times the shorter side
_FEW = 16  # steps of brightness
_NAMED = 10


class _RefusedError(ValueError):
    """Names a file that Pillow can read and the reader refuses."""


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    own = (name for name, (factory, _) in Image.OPEN.items() if factory.__module__.startswith("PIL."))
    return tuple(name for name in own if name not in _NO_RASTER)


@cache
def extensions() -> frozenset[str]:
    """Extensions of the raster images that Pillow itself decodes, in small letters, with the dot."""
    known = {*_formats(), "MPO"}  # JPEG's decoder opens MPO
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


@dataclass(frozen=True)
class ImageReader:
    """Decode an image file, turn it upright, resize the shorter side and cut out the centre.

    An image has at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, also after the resize, and sides of at most 100 to 1.

    Args:
        size: Height and width in pixels.
        background: Red, green and blue behind transparent pixels, each from 0 to 255.
        value_range: Values of images with more than 8 bits that become 0 and 1. None: 0 and 65,535 for 16 bits, and
            images of 32 bits and floats are refused.
    """

    size: int
    background: tuple[int, int, int] = (0, 0, 0)
    value_range: tuple[float, float] | None = None

    def check(self, path: str) -> None:
        """Raise ValueError, which names the file, if its header is unreadable or shows an unusable image."""
        with _opened(path) as file:
            self._check_size(path, file)
            self._limits(path, file)

    def decode(self, path: str) -> Tensor:
        """Read a file as ``(3, size, size)``: bytes, or floats from 0 to 1 if it has more than 8 bits.

        Raises:
            ValueError: If the file can't be used. The error names the file.
        """
        return self._read(path, v2.Compose([v2.Resize(self.size), v2.CenterCrop(self.size)]))

    def decode_whole(self, path: str) -> Tensor:
        """Read a file as ``decode`` does, but at its own size, for a random resize and crop.

        Raises:
            ValueError: If the file can't be used. The error names the file.
        """
        return self._read(path, v2.Identity())

    def _read(self, path: str, shape: Callable[[Image.Image], Image.Image]) -> Tensor:
        with _opened(path) as file:
            self._check_size(path, file)
            limits = self._limits(path, file)
            halved = limits is None and ";16" in str(file.tile)  # Pillow keeps the upper 8 bits of colours of 16
            file.load()
            if halved and np.asarray(file.convert("RGB")).max() < _FEW:
                raise _RefusedError(
                    f"`{path}` must use the upper bits of its 16, of which 8 are read in colour, got values below "
                    f"{_FEW * 256}. Save it with 8 bits, or stretch its values to 0 .. 65535."
                )
            image = _upright(file, self._colours(file) if limits is None else _scaled(path, file, *limits))
            pixels: Tensor = F.pil_to_tensor(shape(image))
            return pixels.expand(3, -1, -1)

    def _check_size(self, path: str, file: Image.Image) -> None:
        short, long = sorted(file.size)
        what = f"got {file.width} x {file.height}"
        if long > _LONGEST * short:
            raise _RefusedError(
                f"`{path}` must have sides of at most {_LONGEST} to 1, {what}. Cut it into pieces, or remove it."
            )
        pixels, most = max(short * long, self.size * self.size * long // short), Image.MAX_IMAGE_PIXELS
        if most is not None and pixels > most:
            raise _RefusedError(
                f"`{path}` must have at most {most:,} pixels, also where its shorter side is resized to {self.size}, "
                f"{what}. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS."
            )

    def _limits(self, path: str, file: Image.Image) -> tuple[float, float] | None:
        """The values that become 0 and 1, None for channels of 8 bits."""
        if not file.mode.startswith(("I", "F")):
            return None
        if "transparency" in file.info:
            raise _RefusedError(
                f"`{path}` must have no transparent value beside more than 8 bits, got mode {file.mode} with one. "
                "Save it without."
            )
        if self.value_range is not None:
            return self.value_range
        # PGM is read as mode I and stretched to 16 bits; older versions of Pillow read PNGs of 16 bits as mode I too.
        if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
            return 0, 65535
        kind = "floats" if file.mode == "F" else "integers of 32 bits"
        raise _RefusedError(
            f"`{path}` must have 8 or 16 bits, whose range is known, got {kind} (mode {file.mode}). "
            "Say which values become 0 and 1 by `value_range=(low, high)`."
        )

    def _colours(self, image: Image.Image) -> Image.Image:
        if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
            plain = image.convert("LA") if image.mode == "La" else image
            above = plain if plain.mode == "RGBA" else plain.convert("RGBA")
            image = Image.new("RGB", above.size, self.background)
            image.paste(above, mask=above)
        return image if image.mode == "RGB" else image.convert("RGB")


def read_all(paths: Iterable[S], read: Callable[[S], T]) -> Iterator[T]:
    """Yield ``read(path)`` for each file. At the end raise one ValueError that names all unreadable files."""
    faults = []
    for path in paths:
        try:
            found = read(path)
        except ValueError as error:
            faults.append(str(error))
        else:
            yield found
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        more = [f"... and {len(faults) - _NAMED:,} more."] if len(faults) > _NAMED else []
        raise ValueError("\n".join([f"{len(faults):,} files can't be used:", *faults[:_NAMED], *more]))


@contextmanager
def _opened(path: str) -> Iterator[ImageFile.ImageFile]:
    try:
        with Image.open(path, formats=_formats()) as file:
            yield file
    except _RefusedError:
        raise
    except Exception as error:  # Pillow raises many types for a damaged file
        found = str(error) or type(error).__name__
        raise ValueError(f"`{path}` must be a readable image, got {found}. Remove or replace the file.") from error


def _upright(file: ImageFile.ImageFile, image: Image.Image) -> Image.Image:
    """Turn an image upright by the EXIF data of its file. Damaged EXIF data are ignored."""
    try:
        turn = _UPRIGHT.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


def _scaled(path: str, file: Image.Image, low: float, high: float) -> Image.Image:
    # Integers of 32 bits need the 53 bits of float64; all others are exact in float32, which is half as large.
    kind: type[np.floating[Any]] = np.float64 if file.mode == "I" else np.float32
    values = np.array(file, dtype=kind)
    if not np.isfinite(values).all():
        raise _RefusedError(f"`{path}` must hold finite values, got NaN or infinity. Replace these pixels.")
    values -= low
    values /= high - low
    return Image.fromarray(values.clip(0, 1, out=values).astype(np.float32, copy=False))
