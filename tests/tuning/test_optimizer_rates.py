"""Rates that are scaled beside their schedule are those of a schedule that was made for them."""

import pytest
import torch
from torch.optim import lr_scheduler as schedules

from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates

SCHEDULES = {
    "warm-up, then decay": lambda optimizer: schedules.SequentialLR(
        optimizer, [schedules.LinearLR(optimizer, 0.1, total_iters=3), schedules.StepLR(optimizer, 2, 0.5)], [3]
    ),
    "cosine": lambda optimizer: schedules.CosineAnnealingLR(optimizer, 8),
    "lambda": lambda optimizer: schedules.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "chained": lambda optimizer: schedules.ChainedScheduler(
        [schedules.ConstantLR(optimizer, 0.5, 2), schedules.ExponentialLR(optimizer, 0.9)]
    ),
    "one cycle": lambda optimizer: schedules.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], 8
    ),
}


def made(rate, schedule):
    groups = [{"params": [torch.zeros(1)], "lr": each} for each in (rate, rate / 10)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    return optimizer, schedule(optimizer)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_scales_with_its_rates(name):
    ours, schedule = made(0.1, SCHEDULES[name])
    OptimizerRates([ours]).scale(0.3, [schedule])
    theirs, expected = made(0.3, SCHEDULES[name])
    for _ in range(8):
        assert [group["lr"] for group in ours.param_groups] == pytest.approx(
            [group["lr"] for group in theirs.param_groups]
        )
        schedule.step()
        expected.step()


def test_a_schedule_with_rates_of_its_own():
    optimizer, schedule = made(0.1, lambda optimizer: schedules.CyclicLR(optimizer, 0.1, 0.9))
    with pytest.raises(ValueError, match="must follow the optimizer's rates, got CyclicLR"):
        OptimizerRates([optimizer]).scale(0.3, [schedule])


def test_names_of_groups_and_of_equal_optimizers():
    def parameters():
        return [torch.zeros(1)]

    optimizers = [
        torch.optim.SGD([{"params": parameters(), "name": "body"}, {"params": parameters(), "lr": 0.2}], lr=0.1),
        torch.optim.AdamW(parameters(), lr=torch.tensor(0.001)),
        torch.optim.SGD(parameters(), lr=0.02),
    ]
    rates = OptimizerRates(optimizers)
    assert rates.at(2.0) == {"SGD/body": 1.0, "SGD/pg2": 2.0, "AdamW": 0.01, "SGD-1": 0.2}
    rates.set(2.0)
    assert optimizers[1].param_groups[0]["lr"].item() == pytest.approx(0.01)
