import math

import pytest
import torch

from lightning_trainingkit.callbacks.diagnostics.step_losses import StepLosses


def test_a_step_is_the_mean_of_its_batches_and_steps_without_a_loss_are_left_out():
    losses = StepLosses()
    for step in ([1.0, 3.0], [], [5.0]):
        for value in step:
            losses.add(torch.tensor(value))
        assert losses.pending == bool(step)
        losses.end_step()
    losses.add(torch.tensor(7.0))  # of a step that has not ended
    assert losses.read(None) == [2.0, 5.0]
    assert losses.read(None) == []
    losses.add(torch.tensor([4.0, 5.0], dtype=torch.bfloat16))
    losses.end_step()
    assert losses.read(None) == [8.0]


def test_infinite_losses_stay_in_their_step():
    losses = StepLosses()
    for value in (1.0, math.inf, math.nan, 2.0):
        losses.add(torch.tensor(value))
        losses.end_step()
    found = losses.read(None)
    assert found[:2] + found[3:] == [1.0, math.inf, 2.0]
    assert math.isnan(found[2])


@pytest.mark.parametrize("mine", [[3.0], []])
def test_ranks_are_averaged_where_one_has_no_loss(mine):
    losses = StepLosses()
    for value in mine:
        losses.add(torch.tensor(value))
    losses.end_step()

    def reduce(table, operation):
        assert operation == "sum"
        table += torch.tensor([[1.0], [1.0]])  # what the other rank has

    assert losses.read(reduce) == [2.0 if mine else 1.0]


def test_it_is_full_after_256_steps():
    losses = StepLosses()
    for _ in range(256):
        assert not losses.full
        losses.end_step()
    assert losses.full
    losses.read(None)
    assert not losses.full
