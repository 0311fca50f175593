from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lightning_trainingkit.data.image_folder import ImageFolderDataModule


def write(folder, counts, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    for name, n in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (12, 9 + i % 5, 3)).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i:02}.png")
    return folder


def loaded(folder, **options):
    data = ImageFolderDataModule(str(folder), **{"image_size": 8, "batch_size": 4, **options})
    data.prepare_data()
    data.setup()
    return data


def paths(part):
    return {path for path, _ in part.samples}


def test_flat_folder_is_split_by_class(tmp_path):
    write(tmp_path, {"cat": 20, "dog": 10})
    data = loaded(tmp_path, val_fraction=0.25, test_fraction=0.2)
    assert (data.classes, data.num_classes, data.image_shape) == (["cat", "dog"], 2, (3, 8, 8))
    train, val, test = (paths(part) for part in (data.train_set, data.val_set, data.test_set))
    assert (len(train), len(val), len(test)) == (18, 6, 6)
    assert len(train | val | test) == 30
    assert sum("cat" in path for path in test) == 4
    again = loaded(tmp_path, val_fraction=0.25, test_fraction=0.2)
    assert paths(again.train_set) == train
    assert paths(loaded(tmp_path, seed=1).test_set) != paths(loaded(tmp_path).test_set)


@pytest.mark.parametrize("there", [(), ("val",), ("test",), ("val", "test")])
def test_tree_of_parts(tmp_path, there):
    write(tmp_path / "train", {"a": 10, "b": 10})
    for part in there:
        write(tmp_path / part, {"b": 3})
    data = loaded(tmp_path)
    for part in ("val", "test"):
        samples = getattr(data, f"{part}_set").samples
        assert {str(Path(path).parts[len(tmp_path.parts)]) for path, _ in samples} == {
            part if part in there else "train"
        }
        if part in there:
            assert {target for _, target in samples} == {1}
    assert paths(data.train_set).isdisjoint(paths(data.val_set) | paths(data.test_set))


def test_pixels_are_those_of_torchvision(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    data = loaded(tmp_path)
    cut = v2.Compose([v2.Resize(8), v2.CenterCrop(8), v2.PILToTensor()])
    peer = {path: cut(ImageFolder(tmp_path).loader(path)) / 255 for path, _ in ImageFolder(tmp_path).samples}
    pixels = torch.stack([peer[path] for path, _ in data.train_set.samples])
    assert data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())
    x, y = next(iter(data.test_dataloader()))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    torch.testing.assert_close(x * std + mean, torch.stack([peer[p] for p, _ in data.test_set.samples]))
    assert y.tolist() == [target for _, target in data.test_set.samples]


def test_given_normalisation_is_taken(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    data = loaded(tmp_path, mean=[0.5] * 3, std=[0.25] * 3)
    assert (data.mean, data.std) == ([0.5] * 3, [0.25] * 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_mode_becomes_colour(tmp_path, mode):
    write(tmp_path, {"a": 8, "b": 8}, mode)
    assert next(iter(loaded(tmp_path).train_dataloader()))[0].shape == (4, 3, 8, 8)


def test_a_transparent_palette_does_not_warn(tmp_path):
    write(tmp_path, {"a": 8, "b": 8}, "P")
    for path in tmp_path.glob("*/*.png"):
        Image.open(path).save(path, transparency=b"\x00\x80")
    loaded(tmp_path)


def test_other_files_and_hidden_folders_are_passed_over(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    assert loaded(tmp_path).num_classes == 2


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_an_unreadable_header_is_named(tmp_path, content):
    write(tmp_path, {"a": 8, "b": 8})
    (tmp_path / "a" / "03.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a/03.png` must be a readable image"):
        loaded(tmp_path, mean=[0.5] * 3, std=[0.5] * 3)


def test_a_truncated_file_is_named(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"\d\d.png` must be a readable image"):
        loaded(tmp_path)
    data = loaded(tmp_path, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ValueError, match=r"\d\d.png` must be a readable image"):
        list(data.train_dataloader())


def test_no_class_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="`data_dir` must hold one folder per class, got none in"):
            ImageFolderDataModule(str(folder))


def test_no_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"must hold images .* got none"):
        loaded(tmp_path)


def test_one_class(tmp_path):
    write(tmp_path, {"a": 4})
    with pytest.raises(
        ValueError, match=r"`data_dir` must hold a folder for each of at least two classes, got a alone"
    ):
        loaded(tmp_path)


def test_unknown_class_in_the_test_folder(tmp_path):
    write(tmp_path / "train", {"a": 8, "b": 8})
    write(tmp_path / "test", {"c": 2})
    with pytest.raises(ValueError, match=r"test` must hold classes of .* only, got \['c'\]"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "`image_size` must be at least 1, got 0"),
        ({"mean": [0.5] * 3}, "`mean` and `std` must both be three numbers"),
        ({"mean": [0.5], "std": [0.5]}, "`mean` and `std` must both be three numbers"),
        ({"test_fraction": 0.0}, "`test_fraction` must be above 0 and below 1"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    write(tmp_path, {"a": 1})
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(tmp_path), **options)
