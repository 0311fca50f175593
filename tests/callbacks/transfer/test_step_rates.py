import copy

import pytest
import torch
from torch import nn

from lightning_trainingkit.callbacks.transfer.step_rates import StepRates


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def loss(model):
    return model(torch.linspace(-1, 1, 15).view(5, 3)).square().sum()


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "Adagrad", "RMSprop", "NAdam", "Adafactor", "RAdam"])
@pytest.mark.parametrize("closure", [False, True])
def test_steps_are_those_of_an_optimizer_with_groups_of_its_own(kind, closure):
    optimizer = getattr(torch.optim, kind)
    one, two = net(), net()
    options = {"lr": 0.1, "weight_decay": 0.1}
    ours = optimizer(one.parameters(), **options)
    groups = [{"params": [*two[0].parameters()], "lr": 0.02}, {"params": [two[2].weight], "lr": 0.1}]
    theirs = optimizer(groups, **options)
    rates = StepRates([ours])
    rates.use(lambda: dict.fromkeys(one[0].parameters(), 0.2) | {one[2].bias: None})
    group = ours.param_groups[0]
    for _ in range(4):
        for model, each in ((one, ours), (two, theirs)):
            each.zero_grad()
            if closure:

                def call(model=model):
                    assert len(ours.param_groups) == 1
                    value = loss(model)
                    value.backward()
                    return value

                assert each.step(call) > 0
            else:
                loss(model).backward()
                each.step()
        assert ours.param_groups == [group]
        assert ours.param_groups[0] is group
        assert (len(group["params"]), group["lr"]) == (4, 0.1)
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    assert not ours.state.get(one[2].bias, {}).get("step")  # Adagrad makes its state before
    rates.detach()
    ours.step()
    assert one[2].bias in ours.state or kind == "SGD"


def test_a_step_that_raises_or_is_left_out_leaves_whole_groups():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rates = StepRates([optimizer])
    rates.use(lambda: dict.fromkeys(model.parameters(), 0.5))

    def fail():
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        optimizer.step(fail)
    assert optimizer.param_groups[0]["lr"] == 0.1
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = copy.deepcopy(model.state_dict())
    for factor in (float("inf"), 1.0):  # a gradient that is not finite, and one that is
        optimizer.zero_grad()
        scaler.scale(loss(model) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert [group["lr"] for group in optimizer.param_groups] == [0.1]
        assert torch.equal(model[0].weight, before["0.weight"]) == (factor != 1)
    gradient = model[0].weight.grad
    torch.testing.assert_close(model[0].weight, before["0.weight"] - 0.05 * gradient)


def test_what_a_step_changes_in_a_group_is_kept_and_the_users_own_changes_too():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group["count"] = group.get("count", 0) + 1
            return super().step(closure)

    model = net()
    optimizer = Counting(model.parameters(), lr=0.1)
    rates = StepRates([optimizer])
    rates.use(lambda: {model[0].weight: 0.5})

    def change():
        optimizer.param_groups[0]["lr"] = 0.3

    for _ in range(3):
        optimizer.step()
    assert optimizer.param_groups[0]["count"] == 3
    torch.optim.SGD.step(optimizer, change)
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_an_optimizer_around_another_one_and_one_that_reads_its_first_group():
    class Around(torch.optim.Optimizer):
        def __init__(self, inner):
            super().__init__(inner.param_groups, {})
            self.inner = inner
            self.param_groups = inner.param_groups

        def step(self, closure=None):
            assert self.param_groups[0]["lr"]
            return self.inner.step()

    model = net()
    optimizer = Around(torch.optim.SGD(model.parameters(), lr=0.1))
    rates = StepRates([optimizer])
    rates.use(lambda: {model[0].weight: 0.5, model[2].weight: None})
    loss(model).backward()
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    torch.testing.assert_close(model[0].weight, before["0.weight"] - 0.05 * model[0].weight.grad)
    torch.testing.assert_close(model[0].bias, before["0.bias"] - 0.1 * model[0].bias.grad)
    assert torch.equal(model[2].weight, before["2.weight"])
    assert [len(group["params"]) for group in optimizer.inner.param_groups] == [4]
    rates.use(lambda: dict.fromkeys(model.parameters()))
    optimizer.step()


def test_optimizers_that_cant_are_refused():
    good = torch.optim.SGD(net().parameters())
    for kind in (torch.optim.LBFGS, torch.optim.Rprop):  # which asks for its rate at the first step alone
        with pytest.raises(TypeError, match=f"got {kind.__name__}"):
            StepRates([good, kind(net().parameters())])
        assert not good._optimizer_step_pre_hooks
