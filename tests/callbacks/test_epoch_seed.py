import random

import numpy as np
import pytest
import torch

from lightning_trainingkit import EpochSeed
from tests.toy import ToyModule, toy_loaders, toy_trainer


class Drawing(ToyModule):
    def __init__(self):
        super().__init__()
        self.drawn = []

    def on_train_epoch_start(self):
        self.drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: NPY002


def drawn(seed, epochs=3):
    module = Drawing()
    toy_trainer(EpochSeed(seed), max_epochs=epochs).fit(module, *toy_loaders())
    return module.drawn


def test_an_epochs_numbers_depend_on_seed_and_epoch_alone():
    torch.manual_seed(5)
    first = drawn(1)
    torch.manual_seed(6)
    assert drawn(1) == first
    assert drawn(1, epochs=1) == first[:1]


def test_epochs_seeds_and_generators_differ():
    numbers = [number for seed in (1, 2) for epoch in drawn(seed) for number in epoch]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_bad_seed(seed):
    with pytest.raises((TypeError, ValueError), match=f"`seed` must be (an integer|at least 0), got {seed}"):
        EpochSeed(seed)
