"""Where the class of an example is found."""

import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

import lightning_trainingkit as kit
from lightning_trainingkit.tuning.folds.fold_labels import find_labels
from tests.tuning.folds.fold_images import Images


def test_classes_are_found_without_reading_all_images():
    images = Images(100)
    labels, note = find_labels(Subset(ConcatDataset([images, images]), range(50, 150)))
    assert (labels, note) == ([each % 2 for each in range(100)], "")
    assert images.read <= 3
    assert find_labels(TensorDataset(torch.zeros(4, 1), torch.tensor([3, 1, 2, 0])))[0] == [3, 1, 2, 0]
    data = kit.DigitsDataModule()
    data.setup()
    labels, note = find_labels(data.train_set)
    assert labels == [int(y) for _, y in data.train_set]


def test_classes_that_no_attribute_has_are_read():
    images = Images(10)
    classes, images.targets = images.targets, None
    pairs = [{"image": 0, "label": label} for label in classes]
    labels, note = find_labels(pairs)
    assert labels == classes
    assert note.startswith("All 10 examples were read to find their classes (key 'label' of each): the data set has no")


def test_classes_of_triples_are_the_targets_or_the_second_elements():
    class Triples(Images):
        def __getitem__(self, index):
            return *super().__getitem__(index), 100 + index

    triples = Triples(6)
    assert find_labels(triples) == ([0, 1, 0, 1, 0, 1], "")
    labels, note = find_labels([triples[index] for index in range(6)])
    assert labels == [0, 1, 0, 1, 0, 1]
    assert "(element 2 of each)" in note
    assert find_labels(TensorDataset(torch.zeros(2, 3), torch.tensor([1, 0]), torch.tensor([7, 8]))) == ([1, 0], "")


def test_classes_that_a_transform_changes_are_read():
    class Flipped(Images):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x, 1 - y

    labels, note = find_labels(Flipped(6))
    assert labels == [1, 0, 1, 0, 1, 0]
    assert note.endswith("its attribute has other classes than the examples.")


def test_few_whole_floats_are_classes():
    targets = torch.tensor([0.0, 1.0, 1.0, 0.0])
    for column in (targets, targets[:, None]):
        assert find_labels(TensorDataset(torch.zeros(4, 2), column)) == ([0, 1, 1, 0], "")
    with pytest.raises(ValueError, match=r"`stratify` must be False where .*, got more than 10 different floats"):
        find_labels(TensorDataset(torch.zeros(11, 2), torch.arange(11.0)))


def test_targets_that_are_no_classes():
    with pytest.raises(ValueError, match="`stratify` must be False where examples have no class index, got tuple"):
        find_labels(TensorDataset(torch.zeros(4, 1), torch.rand(4)))
