"""How the examples of a held-out fold are read."""

import pytest
import torch
from torch.utils.data import Dataset, Subset

from lightning_trainingkit.tuning.folds.fold_view import evaluation_view
from tests.tuning.folds.fold_images import Images, double, random_shift


def test_subsets_of_one_data_set_with_two_transforms():
    train = Subset(Images(transform=random_shift), range(10, 20))
    view, note = evaluation_view(train, Subset(Images(transform=double), range(10)))
    assert [view[index][0].item() for index in range(10)] == [2.0 * index for index in range(10, 20)]
    assert note == ""


def test_random_transforms_that_cannot_be_taken_off_are_refused():
    class Other(Images):
        pass

    with pytest.raises(ValueError, match="without random transforms, got a Images"):
        evaluation_view(Images(transform=random_shift), Other())
    view, note = evaluation_view(Images(transform=double), Other())
    assert view[3][0].item() == 6
    assert note == "Images of a held-out fold see the transform of the train set."


class Flagged(Images):
    """Has a flag of the training beside its transform."""

    def __init__(self, train, size=20, start=0):
        super().__init__(size, double, start)
        self.train = train

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (random_shift(x) if self.train else x), y


def test_a_flag_of_the_training_that_makes_images_random_is_refused():
    with pytest.raises(ValueError, match="got a Flagged whose examples change"):
        evaluation_view(Flagged(True), Subset(Flagged(False), range(4)))


class Placed(Images):
    """Reads from a place that its ``root`` names."""

    def __init__(self, root, size):
        super().__init__(size)
        self.root = root

    def __getitem__(self, index):
        return torch.tensor([{"a": range(20), "b": range(100, 104), "c": []}[self.root][index]]), self.targets[index]


@pytest.mark.parametrize("root", ["b", "c"])
def test_the_place_of_the_images_is_that_of_the_train_set(root):
    view, note = evaluation_view(Placed("a", 20), Placed(root, 4))
    assert [view[index][0].item() for index in range(20)] == list(range(20))
    assert note == ""


class Wrapper(Dataset):
    def __init__(self, dataset, function):
        self.dataset, self.function = dataset, function

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        x, y = self.dataset[index]
        return self.function(x), y


class Augment(Wrapper):
    pass


def test_wrappers_with_a_function_of_another_name():
    one, other = Subset(Images(), range(10)), Subset(Images(), range(10, 20))
    assert evaluation_view(Wrapper(one, double), Wrapper(other, double))[1] == ""
    view, note = evaluation_view(Wrapper(one, double), Wrapper(other, torch.exp))
    assert (view[3][0].item(), note) == (6.0, "Images of a held-out fold see the transform of the train set.")
    for train in (Wrapper(one, random_shift), Wrapper(Augment(one, random_shift), double)):
        with pytest.raises(ValueError, match="without random transforms, got a Wrapper"):
            evaluation_view(train, Wrapper(other, double))
