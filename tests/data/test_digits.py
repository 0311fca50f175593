import sys

import pytest
import torch
from sklearn.datasets import load_digits

from lightning_trainingkit.data.digits import DigitsDataModule


@pytest.fixture(scope="module")
def data():
    module = DigitsDataModule(batch_size=50)
    module.setup("fit")
    return module


def parts(module):
    return [set(part.indices) for part in (module.train_set, module.val_set, module.test_set)]


def test_parts_are_disjoint_and_complete(data):
    train, val, test = parts(data)
    assert train | val | test == set(range(1797))
    assert len(train) + len(val) + len(test) == 1797
    assert len(test) == round(0.2 * 1797)
    assert len(val) == round(0.15 * (1797 - len(test)))


def test_the_split_is_fixed_by_the_seed_alone(data):
    torch.manual_seed(123)
    again, other = DigitsDataModule(), DigitsDataModule(seed=1)
    again.setup()
    other.setup("test")
    assert parts(again) == parts(data)
    assert parts(other) != parts(data)


def test_the_test_part_does_not_move_with_the_validation_part(data):
    other = DigitsDataModule(val_fraction=0.4)
    other.setup()
    assert parts(other)[2] == parts(data)[2]


def test_normalised_by_the_training_part_only(data):
    pixels = torch.tensor(load_digits().images)[sorted(parts(data)[0])] / 16
    assert data.mean == pytest.approx([pixels.mean().item()])
    assert data.std == pytest.approx([pixels.std(correction=0).item()])
    x = torch.cat([x for x, _ in data.train_dataloader()])
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_a_batch_can_be_changed_in_place(data):
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, list)
    x, y = batch
    assert x.shape == (50, *data.image_shape)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    before = [x.clone() for x, _ in data.val_dataloader()]
    for batch in data.val_dataloader():
        batch[0].zero_()
    assert all(torch.equal(a, b) for a, (b, _) in zip(before, data.val_dataloader(), strict=True))


def test_one_image_is_the_image_of_its_batch(data):
    x, y = data.test_set[3]
    batch_x, batch_y = next(iter(data.test_dataloader()))
    assert torch.equal(x, batch_x[3])
    assert y == batch_y[3]


def test_images_and_labels_belong_together(data):
    digits = load_digits()
    for i, (x, y) in zip(data.val_set.indices, data.val_set, strict=True):
        assert y == digits.target[i]
        torch.testing.assert_close(
            x[0] * data.std[0] + data.mean[0], torch.tensor(digits.images[i]).float() / 16, atol=1e-5, rtol=0
        )


def test_scikit_learn_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'lightning-trainingkit\[recipes\]'"):
        DigitsDataModule().setup()
