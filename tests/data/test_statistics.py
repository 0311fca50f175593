"""The command prints numbers of the training images that can be pasted."""

import numpy as np
import pytest
from PIL import Image

from lightning_trainingkit import ImageFolderDataModule
from lightning_trainingkit.data.statistics import main


def write(folder, numbers, offset=0):
    for number in numbers:
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        values = np.random.default_rng(number).integers(0, 200, (8, 8, 3)) + offset
        Image.fromarray(values.astype("uint8")).save(path)
    return folder


def printed(capsys):
    first, numbers = capsys.readouterr().out.splitlines()
    found = eval(f"dict({numbers})")
    return first, found["mean"], found["std"]


def test_mean_and_std_of_all_pixels(tmp_path, capsys):
    folder = write(tmp_path / "photos", range(6))
    main([str(folder), "--image-size", "8"])
    first, mean, std = printed(capsys)
    assert first == f"6 images of {folder}, 8 x 8 pixels:"
    pixels = np.stack([np.array(Image.open(path)) for path in sorted(folder.rglob("*.png"))]) / 255
    assert mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-6)
    assert std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-6)
    data = ImageFolderDataModule(str(folder), image_size=8, mean=mean, std=std, val_fraction=0.4, test_fraction=0.4)
    data.setup()
    assert data.mean == mean


def test_the_training_part_alone_and_images_without_classes(tmp_path, capsys):
    write(tmp_path / "parts" / "train", range(4))
    write(tmp_path / "parts" / "test", range(4), offset=50)
    main([str(tmp_path / "parts"), "--image-size", "8"])
    first, mean, _ = printed(capsys)
    assert first.startswith(f"4 images of {tmp_path / 'parts' / 'train'}")
    main([str(tmp_path / "parts" / "train" / "a"), "--image-size", "8"])
    assert printed(capsys)[1] != mean


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "must be an existing folder"), ("empty", "DIR must hold images that Pillow decodes, got none in")],
)
def test_a_folder_without_images(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path / name)])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_all_unreadable_files_are_named(tmp_path, capsys):
    folder = write(tmp_path / "photos", range(40))
    for name in ("bad", "worse"):
        (folder / "a" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        main([str(folder), "--image-size", "0"])
    assert "must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(folder), "--image-size", "8"])
    said = capsys.readouterr().err
    assert "2 files can't be used" in said
    assert "bad.png" in said
    assert "worse.png" in said
