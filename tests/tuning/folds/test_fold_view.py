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
        return (random_shift(x) if self.train in (True, "train") else x), y


@pytest.mark.parametrize("start", [0, 100])
@pytest.mark.parametrize("flags", [(True, False), ("train", "val")])
def test_a_flag_of_the_training_is_off_for_held_out_images(flags, start):
    size = 20 if start == 0 else 8
    view, note = evaluation_view(Flagged(flags[0]), Subset(Flagged(flags[1], size, start), range(4)))
    assert [view[index][0].item() for index in range(20)] == [2.0 * index for index in range(20)]
    assert note == "A held-out fold is read with the validation set's `train`."


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


def test_wrappers_of_subsets():
    one, other = Subset(Images(), range(10)), Subset(Images(), range(10, 20))
    view, _ = evaluation_view(Wrapper(one, random_shift), Wrapper(other, double))
    assert [view[index][0].item() for index in range(10)] == [2.0 * index for index in range(10)]
    assert evaluation_view(Wrapper(one, double), Wrapper(other, double))[1] == ""
    with pytest.raises(ValueError, match="without random transforms, got a Wrapper"):
        evaluation_view(Wrapper(Augment(one, random_shift), double), Wrapper(other, double))
