import pytest
import torch

from lightning_trainingkit import DigitsDataModule
from lightning_trainingkit.experiments import few_images


def test_a_copy_has_few_of_the_training_images_and_the_data_stay():
    data = DigitsDataModule()
    few = few_images(data, 20, torch.Generator().manual_seed(0))
    whole = {(tuple(x.flatten().tolist()), int(y)) for x, y in data.train_set}
    assert len(few.train_set) == 20 < len(data.train_set)
    assert {(tuple(x.flatten().tolist()), int(y)) for x, y in few.train_set} <= whole
    assert few.val_set is data.val_set
    few.setup("fit")
    assert len(few.train_set) == 20
    again = few_images(data, 20, torch.Generator().manual_seed(0))
    assert torch.equal(again.train_set.tensors[0], few.train_set.tensors[0])


def test_more_images_than_there_are():
    with pytest.raises(ValueError, match="`--images` must be from 1 to 1222"):
        few_images(DigitsDataModule(), 2000, torch.Generator())
