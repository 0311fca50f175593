"""One file: which values a decoded image has, and which files are named in an error."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lightning_trainingkit.data.image_files import ImageReader, extensions, read_all

RAMP = (np.arange(144).reshape(12, 12) * 7 + 2000).astype(np.uint16)


@pytest.fixture
def write(tmp_path):
    """Save an array or an image, and give the path."""

    def save(image, name="x.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return save


def decoded(path, size=12, **options):
    reader = ImageReader(size, **options)
    reader.check(path)
    return reader.decode(path)


@pytest.mark.parametrize("pixels", [np.arange(96, dtype=np.uint8).reshape(8, 12), RAMP[:8]])
def test_a_whole_file_keeps_its_size_and_is_turned_upright(write, pixels):
    turned = Image.Exif()
    turned[274] = 6  # a quarter to the right
    path = write(pixels, exif=turned)
    whole = ImageReader(4).decode_whole(path)
    assert whole.shape == (3, 12, 8)
    plain = ImageReader(12).decode_whole(write(np.rot90(pixels, -1).copy(), "y.png"))
    assert torch.equal(whole, plain)


# More than 8 bits


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm", "x.jp2"])
def test_16_bits_are_kept(write, name):
    x = decoded(write(RAMP, name))
    assert x.shape == (3, 12, 12)
    torch.testing.assert_close(x, torch.tensor(RAMP / 65535, dtype=torch.float32).expand(3, -1, -1))


def test_both_orders_of_bytes_are_read(write, tmp_path):
    big = Image.frombytes("I;16B", (12, 12), RAMP.astype(">u2").tobytes())
    assert torch.equal(decoded(write(big, "big.tif")), decoded(write(RAMP, "little.tif")))


def test_16_bits_are_resized_as_8_bits_are(write):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    wide = decoded(write(pixels.astype(np.uint16) * 257, "wide.png"))
    torch.testing.assert_close(wide, decoded(write(pixels)).float() / 255, atol=1 / 255, rtol=0)


@pytest.mark.parametrize(
    ("pixels", "name", "kind"),
    [
        (RAMP.astype(np.int32), "x.tif", r"integers of 32 bits \(mode I\)"),
        (RAMP.astype(np.float32), "x.tif", r"floats \(mode F\)"),
        (RAMP.astype(np.float32), "x.pfm", r"floats \(mode F\)"),
    ],
)
def test_a_range_that_no_format_fixes_must_be_given(write, pixels, name, kind):
    path = write(pixels, name)
    with pytest.raises(ValueError, match=rf"{name}` must have 8 or 16 bits, .*got {kind}.*value_range=\(low, high\)"):
        ImageReader(12).check(path)
    x = decoded(path, value_range=(2000.0, 2500.0))
    expected = ((pixels.astype(np.float64) - 2000) / 500).clip(0, 1)
    torch.testing.assert_close(x, torch.tensor(expected, dtype=torch.float32).expand(3, -1, -1))


def test_a_given_range_holds_for_16_bits_and_not_for_8(write):
    assert decoded(write(RAMP), value_range=(2000, 3001)).max() == 1
    assert torch.equal(
        decoded(write(np.full((12, 12), 7, np.uint8)), value_range=(2000, 3001)), torch.full((3, 12, 12), 7)
    )


def png_of_16_bits(path, pixels):
    """Write colours of 16 bits, which Pillow reads and does not write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"]
    parts = [struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return str(path)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_keep_8_and_are_refused_where_few_values_are_left(tmp_path, channels):
    pixels = np.full((12, 12, channels), 65535, np.uint16)
    pixels[..., :3] = RAMP[..., None] * 20
    x = decoded(png_of_16_bits(tmp_path / "x.png", pixels))
    torch.testing.assert_close(x[0].float(), torch.tensor(RAMP * 20 / 257, dtype=torch.float32), atol=1, rtol=0)
    pixels[..., :3] = RAMP[..., None]  # of 12 bits: 4 values would be left
    with pytest.raises(ValueError, match=r"x.png` must use the upper bits of its 16.*got values below 4096"):
        decoded(png_of_16_bits(tmp_path / "x.png", pixels))


def test_nan_is_named(write):
    path = write(np.full((4, 4), np.nan, np.float32), "x.tif")
    with pytest.raises(ValueError, match=r"x.tif` must hold finite values"):
        decoded(path, value_range=(0, 1))


# Orientation and colours


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(write, name, orientation):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :4] = 255
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"lossless": True} if name == "x.webp" else {}
    path = write(pixels, name, exif=exif, **lossless)
    with Image.open(path) as file:
        peer = torch.tensor(np.asarray(ImageOps.exif_transpose(file).convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(decoded(path, 16), peer)


def test_16_bits_are_turned_too(write):
    exif = Image.Exif()
    exif[274] = 3
    assert torch.equal(decoded(write(RAMP, exif=exif)), decoded(write(RAMP)).flip(1, 2))


def test_damaged_exif_data_say_nothing(write):
    pixels = np.full((12, 12, 3), 7, np.uint8)
    assert decoded(write(pixels, exif=b"Exif\0\0no TIFF header")).unique().tolist() == [7]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "gif"])
@pytest.mark.parametrize(("background", "grey"), [((0, 0, 0), 0), ((255, 255, 255), 255)])
def test_transparent_pixels_show_the_background(write, mode, background, grey):
    hidden = np.zeros((12, 12), np.uint8)
    hidden[:, :6] = 200
    seen = Image.fromarray(hidden)
    options = {"transparency": {"P": b"\xff" * 200 + b"\0", "RGB": (200, 200, 200)}.get(mode, 200)}
    if mode in ("RGBA", "LA"):
        options = {}
        seen = seen.convert("RGB" if mode == "RGBA" else "L")
        seen.putalpha(Image.fromarray(np.where(hidden == 200, 0, 255).astype(np.uint8)))
    elif mode == "P":
        seen.putpalette([value for value in range(256) for _ in range(3)])
    elif mode == "RGB":
        seen = seen.convert("RGB")
    x = decoded(write(seen, "x.gif" if mode == "gif" else "x.png", **options), background=background)
    assert x[:, :, :6].unique().tolist() == [grey]
    assert x[:, :, 6:].unique().tolist() == [0]


def test_half_transparent_pixels_are_mixed(write):
    seen = Image.new("RGBA", (4, 4), (200, 100, 0, 128))
    x = decoded(write(seen), 4, background=(0, 0, 255))
    assert x[:, 0, 0].tolist() == pytest.approx([100, 50, 127], abs=1)


# Formats


@pytest.mark.parametrize(
    "name",
    [
        "x.gif",
        "x.jfif",
        "x.jpe",
        "x.jp2",
        "x.bmp",
        "x.webp",
        "x.tif",
        "x.ppm",
        "x.tga",
        "x.ico",
        "x.sgi",
        "x.dds",
    ],
)
def test_formats_of_pillow_are_read(write, name):
    assert Path(name).suffix in extensions()
    x = decoded(write(np.full((16, 16, 3), 96, np.uint8), name), 16).float()
    torch.testing.assert_close(x, torch.full((3, 16, 16), 96.0), atol=2, rtol=0)


@pytest.mark.skipif(".avif" not in extensions(), reason="this Pillow has no AVIF")
def test_avif_is_read(write):
    assert decoded(write(np.full((16, 16, 3), 96, np.uint8), "x.avif")).shape == (3, 12, 12)


def test_the_first_frame_counts(write):
    frames = [Image.new("RGB", (12, 12), (value,) * 3) for value in (10, 200)]
    for name in ("x.gif", "x.png", "x.webp", "x.tif"):
        lossless = {"lossless": True} if name == "x.webp" else {}
        assert decoded(write(frames[0], name, save_all=True, append_images=frames[1:], **lossless)).max() == 10


@pytest.mark.parametrize("name", ["x.eps", "x.pdf"])
def test_documents_are_no_images_whatever_they_are_called(write, tmp_path, name):
    assert Path(name).suffix not in extensions()
    Path(write(Image.new("RGB", (9, 9)), name)).rename(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x.png` must be a readable image, got cannot identify"):
        ImageReader(12).check(str(tmp_path / "x.png"))


def test_extensions_leave_out_what_is_no_raster():
    assert extensions().isdisjoint({".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5", ".grib", ".mpg", ".svg", ".txt", ""})


# Files that can't be used


def header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "size", "message"),
    [
        (60000, 60000, 12, "must be a readable image, got Image size"),
        (10000, 10000, 12, "must have at most 89,478,485 pixels.*got 10000 x 10000"),
        (30000, 3, 12, "must have sides of at most 100 to 1, got 30000 x 3"),
        (3, 30000, 224, "must have sides of at most 100 to 1, got 3 x 30000"),
        (900, 10, 2000, "must have at most .* pixels, also where its shorter side is resized to 2000, got 900 x 10"),
    ],
)
def test_images_of_many_pixels_are_refused_by_their_header(tmp_path, width, height, size, message):
    (tmp_path / "x.png").write_bytes(header(width, height))
    for use in (ImageReader(size).check, ImageReader(size).decode):
        with pytest.raises(ValueError, match=f"x.png` {message}"):
            use(str(tmp_path / "x.png"))


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.tif", "x.webp", "x.bmp", "x.jp2"])
def test_a_file_cut_short_is_named(write, tmp_path, name):
    path = write(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8), name)
    whole = (tmp_path / name).read_bytes()
    for length in (0, 5, len(whole) // 2):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{name}` must be a readable image"):
            ImageReader(12).decode(path)


def test_16_bits_with_a_transparent_value_are_refused(write):
    with pytest.raises(ValueError, match="must have no transparent value beside more than 8 bits"):
        ImageReader(12).check(write(RAMP, transparency=2000))


def test_one_error_names_all_files(tmp_path):
    def read(path):
        if path != "good":
            raise ValueError(f"`{path}` is bad.")
        return path

    seen = []
    with pytest.raises(ValueError, match=r"^12 files can't be used:\n`0` is bad.\n(.*\n){9}... and 2 more.$"):
        seen.extend(read_all([*map(str, range(6)), "good", *map(str, range(6))], read))
    assert list(read_all(["good"], read)) == ["good"]
    with pytest.raises(ValueError, match=r"^`x` is bad.$"):
        list(read_all(["good", "x"], read))
