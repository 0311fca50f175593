import hashlib
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10
from torchvision.transforms.v2.functional import to_dtype

from lightning_trainingkit.data.cifar10 import CIFAR10DataModule


class OldDtype:
    """Makes a dtype so that every NumPy 2.4 warns, as 2.4.0 to 2.4.4 do of the pickles of 2009."""

    def __reduce__(self):
        return partial(np.dtype, "u1", align=0), ()


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name):
        pixels = rng.integers(0, 256, (20, 3072)).astype(np.uint8)
        return write(name, {"data": pixels, "labels": [i % 10 for i in range(20)], "dtype": OldDtype()})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    name, md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_pixels_are_those_of_torchvision(root, inside):
    data = CIFAR10DataModule(str(root / "cifar-10-batches-py" if inside else root))
    data.prepare_data()
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (90, 10, 20)
    assert set(data.train_set.indices) | set(data.val_set.indices) == set(range(100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = CIFAR10(root, train=False)
    x, y = next(iter(data.test_dataloader()))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    pixels = torch.from_numpy(peer.data).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(x * std + mean, pixels, atol=1e-5, rtol=0)
    assert y.tolist() == peer.targets


def test_absent(tmp_path):
    data = CIFAR10DataModule(str(tmp_path))
    data.prepare_data()
    with pytest.raises(FileNotFoundError, match=r"got no folder .*cifar-10-batches-py. Unpack"):
        data.setup()


def test_damaged(root):
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    with pytest.raises(ValueError, match="must hold CIFAR-10 undamaged"):
        CIFAR10DataModule(str(root)).setup()


def test_download_is_torchvisions(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda *args, **options: calls.append((args, options)))
    CIFAR10DataModule(str(tmp_path)).prepare_data()
    assert not calls
    CIFAR10DataModule(str(tmp_path), download=True).prepare_data()
    assert calls == [((tmp_path,), {"download": True})]


@pytest.mark.slow  # eigenvectors of 3,072 x 3,072 numbers
def test_zca_of_the_largest_images(root):
    data = CIFAR10DataModule(str(root), preprocess="zca")
    data.setup()
    x, _ = next(iter(data.test_dataloader()))
    assert x.shape == (20, 3, 32, 32)
    raw = to_dtype(data.test_set.dataset.images[data.test_set.indices], torch.float32, scale=True)
    assert torch.equal(x, data.preprocessing(raw))
