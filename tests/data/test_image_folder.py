from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lightning_trainingkit import ImageClassifier
from lightning_trainingkit.data.image_folder import ImageFolderDataModule
from tests.toy import toy_trainer


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


def test_all_unreadable_files_are_in_one_error(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    for number in (1, 3):
        (tmp_path / "a" / f"0{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^2 files can't be used:\n.*a/01.png` must be.*\n.*a/03.png` must be"):
        loaded(tmp_path)


def test_all_truncated_files_of_the_training_part_are_in_one_error(tmp_path):
    for part in ("train", "val", "test"):
        write(tmp_path / part, {"a": 4, "b": 4})
    cut = [tmp_path / "train" / name for name in ("a/01.png", "b/02.png")]
    for path in cut:
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"^2 files can't be used") as raised:
        loaded(tmp_path)
    assert all(str(path) in str(raised.value) for path in cut)


def test_a_truncated_file_is_named_by_a_worker(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    data = loaded(tmp_path, mean=[0.5] * 3, std=[0.5] * 3, num_workers=1)
    path = Path(data.train_set.samples[0][0])
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=f"{path.name}` must be a readable image"):
        list(data.train_dataloader())


def test_16_bits_are_normalised_in_their_own_range(tmp_path):
    for name, value in (("a", 1000), ("b", 3000)):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.fromarray(np.full((8, 8), value + i, np.uint16)).save(tmp_path / name / f"{i}.png")
    data = loaded(tmp_path)
    assert data.mean == pytest.approx([2003.5 / 65535] * 3, rel=0.01)
    assert data.std == pytest.approx([1000 / 65535] * 3, rel=0.01)
    assert len(torch.cat([x for x, _ in data.train_dataloader()]).unique()) == len(data.train_set)
    data = loaded(tmp_path, value_range=(1000, 3007))
    assert data.mean == pytest.approx([0.5] * 3, rel=0.01)


def test_the_background_reaches_the_batch(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    for path in tmp_path.glob("*/*.png"):
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path)
    assert loaded(tmp_path, background="#ff8000").mean == pytest.approx([1, 128 / 255, 0])


# What counts


@pytest.mark.parametrize(
    "names",
    [("Train", "Val", "Test"), ("train", "valid", "testing"), ("TRAINING", "Validation", "TEST"), ("train", "dev")],
)
def test_parts_by_their_usual_names(tmp_path, names):
    for name, number in zip(names, (8, 4, 6), strict=False):
        write(tmp_path / name, {"a": number, "b": number})
    data = loaded(tmp_path)
    assert len(data.val_set) == 8
    assert len(data.test_set) == (12 if len(names) == 3 else 2)
    assert len(data.train_set) == (16 if len(names) == 3 else 14)


@pytest.mark.parametrize("names", [("invalid", "valid"), ("dev", "prod"), ("test", "no test"), ("plane", "train")])
def test_classes_that_are_called_like_parts(tmp_path, names):
    write(tmp_path, dict.fromkeys(names, 8))
    assert loaded(tmp_path).classes == sorted(names)


def test_one_part_by_two_names(tmp_path):
    for name in ("train", "val", "Valid"):
        write(tmp_path / name, {"a": 2, "b": 2})
    with pytest.raises(ValueError, match=r"must hold one val folder, got Valid and val. Remove or rename one"):
        ImageFolderDataModule(str(tmp_path))


def test_parts_are_no_classes(tmp_path):
    write(tmp_path, {"train": 4, "test": 4})
    with pytest.raises(ValueError, match=r"train` must hold one folder per class, got none. Put the images into ROOT"):
        ImageFolderDataModule(str(tmp_path))


def test_a_flat_test_folder_is_for_predict(tmp_path):
    write(tmp_path / "train", {"a": 10, "b": 10})
    write(tmp_path, {"test": 5})
    data = loaded(tmp_path)
    assert sum(map(len, (data.train_set, data.val_set, data.test_set))) == 20
    assert all("train" in path for path in paths(data.test_set))
    assert [Path(path).name for path in data.predict_set.paths] == [f"{i:02}.png" for i in range(5)]
    x = torch.cat(list(data.predict_dataloader()))
    assert torch.equal(x, torch.stack([data.predict_set[i] for i in range(5)]))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    predictions = toy_trainer().predict(ImageClassifier(net, 2), datamodule=data)
    assert torch.cat(predictions).shape == (5, 2)


def test_a_labelled_test_folder_is_for_both(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    data = loaded(tmp_path)
    for ours, theirs in zip(data.predict_dataloader(), data.test_dataloader(), strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_a_flat_validation_folder_is_refused(tmp_path):
    write(tmp_path / "train", {"a": 4, "b": 4})
    write(tmp_path, {"val": 4})
    with pytest.raises(ValueError, match=r"val` must hold one folder per class, got none. Put images there"):
        loaded(tmp_path)


def test_what_is_passed_over_is_said_in_one_line(tmp_path, caplog):
    write(tmp_path / "train", {"a": 8, "b": 8})
    hidden = [".ipynb_checkpoints/x.png", "a/.thumbs/x.png", "a/__MACOSX/x.png", "b/._x.png"]
    for name in hidden:
        (tmp_path / "train" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / name).write_bytes(b"no image")
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "b" / "more").mkdir()
    (tmp_path / "train" / "b" / "more" / "scan.DCM").write_text("no image")
    write(tmp_path, {"unsorted": 3})
    with caplog.at_level("INFO"):
        data = loaded(tmp_path)
        data.setup()
    assert sum(map(len, (data.train_set, data.val_set, data.test_set))) == 16
    (said,) = [record.getMessage() for record in caplog.records if "passes over" in record.getMessage()]
    assert said == (
        f"ImageFolderDataModule passes over in {tmp_path}: hidden files or folders: 4; files that are no images: 2 "
        "(.txt, .dcm); outside of the classes: 1 (unsorted)."
    )


def test_nothing_is_said_of_a_clean_folder(tmp_path, caplog):
    write(tmp_path, {"a": 8, "b": 8})
    with caplog.at_level("INFO"):
        loaded(tmp_path)
    assert "passes over" not in caplog.text


def test_links_are_followed_once(tmp_path):
    root = write(tmp_path / "root", {"a": 8, "b": 8})
    write(tmp_path / "elsewhere", {"c": 3})
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "all").symlink_to(root)
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "a" / "again").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "up").symlink_to(tmp_path)
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    data = loaded(root)
    assert data.classes == ["a", "b", "c"]
    every = [data.train_set, data.val_set, data.test_set]
    counts = torch.tensor([target for part in every for _, target in part.samples]).bincount()
    assert counts.tolist() == [11, 8, 3]


def test_a_broken_link_is_named(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"a/gone.png` must be a readable image, got .*No such file"):
        loaded(tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    write(tmp_path, {"a": 8, "b": 8})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must hold images of each class, got none of c. .*no images: 1 \(.heic\)"):
        loaded(tmp_path)


def test_no_class_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="`data_dir` must hold one folder per class, got none in"):
        ImageFolderDataModule(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"`data_dir` must be an existing folder, got .*absent"):
        ImageFolderDataModule(str(tmp_path / "absent"))


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
    ("options", "error", "message"),
    [
        ({"image_size": 0}, ValueError, "`image_size` must be at least 1, got 0"),
        ({"image_size": "32"}, TypeError, "`image_size` must be an integer, got '32'"),
        ({"image_size": (32, 32)}, TypeError, r"`image_size` must be an integer, got \(32, 32\)"),
        ({"batch_size": 2.5}, TypeError, "`batch_size` must be an integer, got 2.5"),
        ({"seed": "0"}, TypeError, "`seed` must be an integer, got '0'"),
        ({"data_dir": None}, TypeError, "`data_dir` must be a path, got None"),
        ({"mean": [0.5] * 3}, ValueError, "`mean` and `std` must both be three numbers"),
        ({"mean": [0.5], "std": [0.5]}, ValueError, "`mean` and `std` must both be three numbers"),
        ({"mean": 0.5, "std": 0.5}, ValueError, "`mean` and `std` must both be three numbers"),
        ({"mean": ["0"] * 3, "std": [1] * 3}, TypeError, "`mean` must be a number, got '0'"),
        ({"mean": [0] * 3, "std": [0] * 3}, ValueError, "`std` must be above 0, got 0"),
        ({"test_fraction": 0.0}, ValueError, "`test_fraction` must be above 0 and below 1"),
        ({"background": 0}, TypeError, "`background` must be the name of a colour, got 0"),
        (
            {"background": "#ffffff80"},
            ValueError,
            "`background` must be a colour without transparency, got '#ff",
        ),
        ({"background": "reddy"}, ValueError, "`background` must be the name of a colour, got 'reddy'"),
        ({"value_range": 4095}, TypeError, "`value_range` must be two numbers, got 4095"),
        ({"value_range": (0, "4095")}, TypeError, "`value_range` must be a number, got '4095'"),
        ({"value_range": (1, 1)}, ValueError, r"`value_range` must rise, got \(1, 1\)"),
    ],
)
def test_bad_arguments(tmp_path, options, error, message):
    write(tmp_path, {"a": 1})
    with pytest.raises(error, match=message):
        ImageFolderDataModule(**{"data_dir": str(tmp_path), **options})


@pytest.mark.parametrize("name", ["images", "test"])
def test_one_folder_of_a_usual_name_in_the_test_folder_is_for_predict(tmp_path, name):
    write(tmp_path / "train", {"a": 10, "b": 10})
    write(tmp_path / "test", {name: 5})
    assert len(loaded(tmp_path).predict_set) == 5


def test_parts_without_classes_are_no_classes(tmp_path):
    write(tmp_path, {"train": 4, "test": 4, "extra": 4})
    with pytest.raises(ValueError, match=r"train` must hold one folder per class, got none"):
        loaded(tmp_path)
