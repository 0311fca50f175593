import pytest
import torch

from lightning_trainingkit.data._base import check_labels, split
from lightning_trainingkit.data.cifar10 import CIFAR10DataModule
from lightning_trainingkit.data.digits import DigitsDataModule
from lightning_trainingkit.data.fashion_mnist import FashionMNISTDataModule


@pytest.mark.parametrize(("labels", "found"), [([0, 3], "from 0 to 3"), ([-1, 2], "from -1 to 2")])
def test_labels_out_of_range(labels, found):
    with pytest.raises(ValueError, match=rf"`files` must hold labels in 0 .. 2, got labels {found}"):
        check_labels(torch.tensor(labels), 3, "files")


def test_no_images():
    with pytest.raises(ValueError, match=r"`files` must hold at least one image, got none"):
        check_labels(torch.tensor([]), 3, "files")


def test_a_part_that_would_be_empty():
    with pytest.raises(ValueError, match=r"`val_fraction` must leave images in both parts, got 0.1 of 1 images"):
        split(torch.tensor([0]), "val_fraction", 0.1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"num_workers": -1}, "`num_workers` must be at least 0, got -1"),
        ({"val_fraction": 0}, "`val_fraction` must be above 0 and below 1, got 0"),
        ({"test_fraction": 1.0}, "`test_fraction` must be above 0 and below 1, got 1.0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**options)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64, 127, 128, 2000])
def test_a_last_training_batch_of_one_image_is_left_out(batch_size):
    data = DigitsDataModule(batch_size=batch_size)
    data.setup()
    sizes = [len(y) for _, y in data.train_dataloader()]
    n = len(data.train_set)
    assert sum(sizes) == n - (n % batch_size == 1)
    assert batch_size == 1 or min(sizes) > 1
    assert sum(len(y) for _, y in data.val_dataloader()) == len(data.val_set)


def test_workers_serve_the_same_batches():
    alone, helped = DigitsDataModule(), DigitsDataModule(num_workers=2)
    for data in (alone, helped):
        data.setup()
    loader = helped.val_dataloader()
    assert not loader.persistent_workers  # with them a resumed run would draw other numbers than an unbroken one
    for ours, theirs in zip(alone.val_dataloader(), loader, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("kind", [FashionMNISTDataModule, CIFAR10DataModule])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": "32"}, "`batch_size` must be an integer, got '32'"),
        ({"val_fraction": "0.1"}, "`val_fraction` must be a number, got '0.1'"),
        ({"seed": 0.5}, "`seed` must be an integer, got 0.5"),
        ({"data_dir": 3}, "`data_dir` must be a path, got 3"),
        ({"download": "yes"}, "`download` must be True or False, got 'yes'"),
    ],
)
def test_arguments_of_a_wrong_type(kind, options, message):
    with pytest.raises(TypeError, match=message):
        kind(**options)
