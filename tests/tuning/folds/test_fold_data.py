"""What a user's training sees when its DataModule serves a fold."""

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
from torch.utils.data import WeightedRandomSampler as Weighted

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.folds.fold_data import fingerprint, serve_fold
from lightning_trainingkit.tuning.folds.fold_labels import find_labels
from lightning_trainingkit.tuning.folds.fold_source import look_and_divide
from lightning_trainingkit.tuning.folds.fold_view import evaluation_view
from lightning_trainingkit.tuning.folds.folds import make_folds
from lightning_trainingkit.tuning.trials.source import make_source
from tests.toy import ToyModule


class Images(Dataset):
    """Example ``i`` is the number ``i``, then the transform."""

    def __init__(self, size=20, transform=None, start=0):
        self.targets = [each % 2 for each in range(size)]
        self.transform, self.start, self.read = transform, start, 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.read += 1
        x = torch.tensor([float(index + self.start)])
        return (x if self.transform is None else self.transform(x)), self.targets[index]


def random_shift(x):
    return x + torch.rand(1) + 0.1


def double(x):
    return 2 * x


def as_list(batch):
    return [torch.stack([x for x, _ in batch]), [y for _, y in batch]]


class Data(L.LightningDataModule):
    def __init__(self, train, val=None, **options):
        super().__init__()
        self.train, self.val = train, val
        self.options = {"batch_size": 4, "shuffle": True} | options

    def train_dataloader(self):
        return DataLoader(self.train, **self.options)

    def val_dataloader(self):
        return DataLoader(self.val, 3)

    def test_dataloader(self):
        return DataLoader(self.val, 7)


def numbers(loader):
    return sorted(x for batch in loader for x in batch[0].flatten().tolist())


def test_a_fold_trains_on_its_part_and_validates_on_the_rest_without_the_random_transform():
    data = Data(Images(transform=random_shift), Images(6, double, start=100))
    folds = make_folds(20, 4)
    serve_fold(data, folds, 1)
    held_out = [2.0 * index for index in folds.validation(1)]
    assert numbers(data.val_dataloader()) == held_out
    assert [len(batch[0]) for batch in data.val_dataloader()] == [3, 2]
    seen = numbers(data.train_dataloader())
    assert [int(x - 0.1) for x in seen] == folds.train(1)
    assert seen != numbers(data.train_dataloader())
    assert numbers(data.test_dataloader()) == [200.0 + 2 * each for each in range(6)]
    assert data.train.transform is random_shift


def test_loaders_keep_the_users_batches_and_order():
    data = Data(Images(), Images(), batch_size=5, shuffle=False, collate_fn=as_list)
    serve_fold(data, make_folds(20, 2), 0)
    first = next(iter(data.train_dataloader()))
    assert isinstance(first, list)
    assert first[0].flatten().tolist() == make_folds(20, 2).train(0)[:5]


def test_a_last_batch_of_one_image_is_left_out_of_the_training():
    data = Data(Images(), Images(), batch_size=7)
    serve_fold(data, make_folds(20, 4), 0)
    assert [len(batch[0]) for batch in data.train_dataloader()] == [7, 7]


def test_subsets_of_one_data_set_with_two_transforms():
    train = Subset(Images(transform=random_shift), range(10, 20))
    view, note = evaluation_view(train, Subset(Images(transform=double), range(10)))
    assert [view[index][0].item() for index in range(10)] == [2.0 * index for index in range(10, 20)]
    assert note == ""


def test_the_kits_augmentation_is_not_seen_by_held_out_images():
    plain, augmented = (kit.DigitsDataModule(augment=augment) for augment in (None, {"padding": 1}))
    for data in (plain, augmented):
        data.setup()
        serve_fold(data, make_folds(len(data.train_set), 2), 0)
    one, other = (torch.cat([x for x, _ in data.val_dataloader()]) for data in (plain, augmented))
    assert torch.equal(one, other)
    assert len(one) == len(plain.train_set) // 2


def test_random_transforms_that_cannot_be_taken_off_are_refused():
    class Other(Images):
        pass

    with pytest.raises(ValueError, match="without random transforms, got a Images"):
        evaluation_view(Images(transform=random_shift), Other())
    view, note = evaluation_view(Images(transform=double), Other())
    assert view[3][0].item() == 6
    assert note == "Images of a held-out fold see the transform of the train set."


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (lambda: {"a": DataLoader(Images())}, "one train loader of torch, got dict"),
        (lambda: DataLoader(Stream()), "a train set with indices, got a stream"),
        (lambda: DataLoader(Images(), 4, sampler=Weighted([1.0] * 20, 20)), "got WeightedRandomSampler"),
        (lambda: DataLoader(Images(), batch_size=None), "got NoneType"),
    ],
)
def test_loaders_that_cannot_be_cut(loader, said):
    data = Data(Images(), Images())
    data.train_dataloader = loader
    serve_fold(data, make_folds(20, 2), 0)
    with pytest.raises(ValueError, match=said):
        data.train_dataloader()


def test_a_train_set_of_another_size_is_refused():
    data = Data(Images(18), Images())
    serve_fold(data, make_folds(20, 2), 0)
    with pytest.raises(ValueError, match="same train set in each trial, got 18 examples, and 20"):
        data.train_dataloader()


def test_a_split_that_draws_again_is_refused_in_another_process_and_taken_once_in_one():
    class Splits(Data):
        def train_dataloader(self):
            return DataLoader(random_split(self.train, [20, 20])[0], 4, shuffle=True)

    data, folds = Splits(Images(40), Images()), make_folds(20, 2)
    examples = fingerprint(data.train_dataloader().dataset)
    serve_fold(data, folds, 0)
    assert set(numbers(data.train_dataloader())).isdisjoint(numbers(data.val_dataloader()))
    data = Splits(Images(40), Images())
    serve_fold(data, folds, 0, examples)
    with pytest.raises(ValueError, match="same train set in each trial, got other examples or another order"):
        data.train_dataloader()


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
    assert note.startswith("All 10 examples were read")


def test_classes_that_a_transform_changes_are_read():
    class Flipped(Images):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x, 1 - y

    assert find_labels(Flipped(6))[0] == [1, 0, 1, 0, 1, 0]


def test_targets_that_are_no_classes():
    with pytest.raises(ValueError, match="`stratify` must be False where examples have no class index, got tuple"):
        find_labels(TensorDataset(torch.zeros(4, 1), torch.rand(4)))


def test_groups_by_the_name_of_an_attribute_and_the_users_data_stays():
    images = Images(40, transform=random_shift)
    images.patients = [f"patient {each // 4}" for each in range(40)]
    data = Data(images, Images(4))
    source, state = make_source(ToyModule(), data), torch.get_rng_state()
    options = {"folds": 5, "repeats": 1, "seed": 0}
    folds, _, notes = look_and_divide(source, {}, stratify=True, groups="patients", **options)
    assert notes == []
    for fold in range(5):
        assert {index // 4 for index in folds.train(fold)}.isdisjoint(index // 4 for index in folds.validation(fold))
    assert data.trainer is None
    assert images.read == 0
    assert torch.equal(state, torch.get_rng_state())
