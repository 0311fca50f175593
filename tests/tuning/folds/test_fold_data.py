"""What a user's training sees when its DataModule serves a fold."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, random_split
from torch.utils.data import WeightedRandomSampler as Weighted

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.folds.fold_data import fingerprint, serve_fold
from lightning_trainingkit.tuning.folds.fold_source import look_and_divide
from lightning_trainingkit.tuning.folds.folds import make_folds
from lightning_trainingkit.tuning.trials.source import make_source
from tests.toy import ToyModule
from tests.tuning.folds.fold_images import Images, double, random_shift


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


def test_the_kits_augmentation_is_not_seen_by_held_out_images():
    plain, augmented = (kit.DigitsDataModule(augment=augment) for augment in (None, {"padding": 1}))
    for data in (plain, augmented):
        data.setup()
        serve_fold(data, make_folds(len(data.train_set), 2), 0)
    one, other = (torch.cat([x for x, _ in data.val_dataloader()]) for data in (plain, augmented))
    assert torch.equal(one, other)
    assert len(one) == len(plain.train_set) // 2


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


def test_another_order_of_examples_without_an_attribute_of_classes_is_refused():
    pairs = [(torch.zeros(1), each % 3) for each in range(20)]
    data = Data(pairs[::-1], pairs)
    serve_fold(data, make_folds(20, 2), 0, fingerprint(pairs))
    with pytest.raises(ValueError, match=r"or another order than when the folds were made\. Give its shuffle"):
        data.train_dataloader()


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


class Counts(ToyModule):
    def validation_step(self, batch, batch_idx, dataloader_idx):
        pass


class Two(Data):
    def val_dataloader(self):
        return [DataLoader(self.val), DataLoader(self.val)]


def test_several_validation_loaders_are_refused_for_a_step_that_needs_their_number():
    options = {"folds": 2, "repeats": 1, "stratify": True, "groups": None, "seed": 0}
    data = Two(Images(), Images(4))
    with pytest.raises(ValueError, match="one validation loader where `validation_step` takes `dataloader_idx`, got 2"):
        look_and_divide(make_source(Counts(), data), {}, **options)
    _, _, notes = look_and_divide(make_source(ToyModule(), data), {}, **options)
    assert notes == ["A held-out fold takes the place of all 2 validation loaders."]
