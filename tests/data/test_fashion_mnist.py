import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from lightning_trainingkit.data.fashion_mnist import FashionMNISTDataModule

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write(folder, suffix=".gz", side=28, labels=10):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 20)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (n, side, side))),
            ("labels-idx1", np.arange(n) % labels),
        ):
            data = idx(array)
            (folder / f"{part}-{kind}-ubyte{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return folder


def loaded(folder, **options):
    data = FashionMNISTDataModule(folder and str(folder), **options)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("tree", ["", "FashionMNIST/raw"])
def test_flat_folder_and_tree_plain_and_compressed(tmp_path, suffix, tree):
    write(tmp_path / tree, suffix)
    data = loaded(tmp_path)
    assert len(data.train_set) + len(data.val_set) == 60
    assert {int(y) for _, y in data.val_set} == {int(y) for _, y in data.train_set} == set(range(10))
    assert set(data.train_set.indices).isdisjoint(data.val_set.indices)
    assert min(data.test_set.indices) == 60
    assert len(data.test_set) == 20


def test_pixels_are_those_that_torchvision_reads(tmp_path):
    write(tmp_path / "FashionMNIST" / "raw", "")
    data = loaded(tmp_path)
    peer = torchvision.datasets.FashionMNIST(tmp_path, train=True)
    for i, (x, y) in zip(data.train_set.indices, data.train_set, strict=True):
        assert y == peer.targets[i]
        torch.testing.assert_close(x[0] * data.std[0] + data.mean[0], peer.data[i] / 255, atol=1e-5, rtol=0)
    assert data.mean == pytest.approx([(peer.data[data.train_set.indices] / 255).mean().item()])


def test_absent_names_the_places_and_the_ways_to_get_it(tmp_path, monkeypatch):
    data = FashionMNISTDataModule(str(tmp_path / "here"))
    data.prepare_data()
    with pytest.raises(FileNotFoundError) as error:
        data.setup()
    for words in (str(tmp_path / "here" / "FashionMNIST"), "download=True", "dataset-fashion-mnist"):
        assert words in str(error.value)


def test_three_files_of_four_are_absent(tmp_path):
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError):
        loaded(tmp_path)


def test_downloads_only_if_asked_and_needed(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        torchvision.datasets,
        "FashionMNIST",
        lambda root, download: calls.append(write(Path(root) / "FashionMNIST/raw")),
    )
    FashionMNISTDataModule(str(tmp_path)).prepare_data()
    assert not calls
    loaded(tmp_path, download=True)
    loaded(tmp_path, download=True)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip", "train-images-idx3-ubyte.gz` must be a readable idx file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"no idx"), "train-images-idx3-ubyte.gz` must be a readable idx"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b""), "train-images-idx3-ubyte.gz` must be a readable idx file"),
        (
            "t10k-labels-idx1-ubyte.gz",
            gzip.compress(idx(np.arange(20))[:-3]),
            "t10k-labels-idx1-ubyte.gz` must be a read",
        ),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.arange(9))), "must hold one label per image of .* got 9"),
        (
            "t10k-labels-idx1-ubyte.gz",
            gzip.compress(idx(np.arange(20))),
            "test part of .* labels in 0 .. 9, got .* to 19",
        ),
    ],
    ids=["no gzip", "no idx", "nothing", "cut off", "too few", "too many classes"],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (write(tmp_path) / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path)


def test_wrong_image_size(tmp_path):
    with pytest.raises(ValueError, match=r"must hold images of shape \(1, 28, 28\), got \(1, 27, 27\)"):
        loaded(write(tmp_path, side=27))


def test_empty_training_set(tmp_path):
    write(tmp_path)
    for kind, array in (("images-idx3", np.zeros((0, 28, 28))), ("labels-idx1", np.zeros(0))):
        (tmp_path / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    with pytest.raises(ValueError, match=r"the training part of .* must hold at least one image, got none"):
        loaded(tmp_path)


def test_shared_data_folders_are_searched(tmp_path, monkeypatch):
    write(tmp_path / "share" / "datasets" / "fashion-mnist")
    monkeypatch.setenv("XDG_DATA_DIRS", os.pathsep.join([str(tmp_path), str(tmp_path / "share")]))
    assert len(loaded(None).test_set) == 20
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        loaded(None)


@pytest.mark.slow
def test_the_real_data_set():
    if not DEBIAN.is_dir() and "CI" not in os.environ:
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    data = FashionMNISTDataModule()
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (54_000, 6_000, 10_000)
    labels = data.train_set.dataset.targets
    assert torch.equal(torch.bincount(labels[data.val_set.indices]), torch.full((10,), 600))
    assert data.mean == pytest.approx([0.286], abs=2e-3)
    assert data.std == pytest.approx([0.353], abs=2e-3)
    assert sum(len(x) for x, _ in data.train_dataloader()) == 54_000
