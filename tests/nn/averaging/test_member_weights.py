"""Forwards of every habit see one member's weights at a time, and their module is as it was afterwards."""

import copy

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging.averaged import Averaged
from lightning_trainingkit.nn.averaging.members import Members
from tests.nn.nets import Recurrent, Tied, explicit, found, images, other, parametrised, seeded, small


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, x):
        self.features = self.first(x.flatten(1))
        return self.last(self.features)


def test_what_a_forward_keeps_stays_a_tensor_of_one_member():
    members, module, x = [Keeps() for _ in range(5)], Keeps().eval(), torch.randn(4, 3, 2, 2)
    averaged = Averaged(module, Members([member.state_dict() for member in members]))
    for _ in range(3):
        averaged(x)
        torch.testing.assert_close(module.features, members[-1].first(x.flatten(1)))
    copy.deepcopy(module.features.detach())


class Aliased(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)
        self.held = [self.last.weight]

    def forward(self, x):
        return x.flatten(1) @ self.held[0].T


@pytest.mark.parametrize("make", [small, Tied, Recurrent, parametrised, Aliased])
def test_the_data_of_members_come_and_go_whatever_holds_the_tensors(make):
    nets, x = [seeded(make, seed) for seed in range(3)], images()
    module = seeded(make, 9)
    before, average = found(module), Averaged(module, Members([net.state_dict() for net in nets]))
    for _ in range(3):
        assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
        assert found(module) == before
    module.register_forward_hook(lambda *_: (_ for _ in ()).throw(ArithmeticError()))
    with pytest.raises(ArithmeticError):
        average(x)
    assert found(module) == before


class Rebinds(nn.Module):
    """Sets another tensor in the place of a buffer."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)
        self.register_buffer("seen", torch.randn(3))

    def forward(self, x):
        self.seen = self.seen * 1.0
        return self.last(x.flatten(1)) + self.seen


class Reuses(nn.Module):
    """Returns one tensor of its own, time and again."""

    def __init__(self):
        super().__init__()
        self.last, self.out = nn.Linear(64, 3), torch.empty(6, 3)

    def forward(self, x):
        return self.out.copy_(self.last(x.flatten(1)))


class Branches(nn.Module):
    """Reaches a weight by another reference, for some images."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3, bias=False)
        self.kept = {"weights": [self.last.weight]}

    def forward(self, x):
        x = x.flatten(1)
        return x @ self.kept["weights"][0].T if x.amax() > 50 else self.last(x)


@pytest.mark.parametrize("make", [Rebinds, Reuses, Branches, Recurrent])
@pytest.mark.parametrize("as_modules", [False, True])
def test_forwards_that_keep_tensors_of_their_own(make, as_modules):
    nets, module = [seeded(make, seed) for seed in range(3)], seeded(make, 9)
    given = copy.deepcopy([net if as_modules else net.state_dict() for net in nets])
    average, before = Averaged(module, Members(given)), found(module)
    for number in range(4):
        x = images(seed=number) * (1 if number < 3 else 100)
        with torch.no_grad():
            assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
        assert found(module) == before
    if make is Recurrent:
        assert all(one is other for one, other in zip(module.lstm._flat_weights, module.lstm.parameters(), strict=True))


class Collects(nn.Module):
    def __init__(self):
        super().__init__()
        self.last, self.features, self.outputs = nn.Linear(64, 3), {}, []

    def forward(self, x):
        self.features["input"] = x
        self.outputs.append(self.last(x.flatten(1)))
        return self.outputs[-1]


def test_what_a_forward_keeps_in_containers_is_of_single_members():
    nets, module = [seeded(Collects, seed) for seed in range(3)], seeded(Collects, 9)
    average = Averaged(module, Members([net.state_dict() for net in nets]))
    for _ in range(3):
        average(images())
    assert len(module.outputs) == 3 * 3
    assert all(each.shape == (6, 3) and each.sum().isfinite() for each in module.outputs)


@pytest.mark.parametrize("vectorize", [False, True])
def test_a_module_that_has_changed_since_is_looked_at_again(vectorize):
    nets, module = [seeded(small, seed) for seed in range(3)], seeded(small, 9)
    average, x = Averaged(module, Members([net.state_dict() for net in nets], vectorize=vectorize)), images()
    for _ in range(3):
        average(x)
    module[0] = nn.Conv2d(1, 4, 3)
    assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
    average.double()
    assert torch.allclose(average(x.double()).exp(), explicit(nets, x).double(), atol=1e-6, rtol=0)


def test_hooks_that_come_later_see_each_member():
    nets, module, x = [seeded(small, seed) for seed in range(3)], seeded(small, 9), images()
    average, seen = Averaged(module, Members([net.state_dict() for net in nets])), []
    average(x)
    module[1].register_forward_hook(lambda _, __, out: seen.append(out.sum().item()))
    assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
    assert len(seen) == 3


def test_a_part_that_was_cast_or_has_another_weight_is_seen():
    nets, module, x = [seeded(other, seed) for seed in range(2)], seeded(other, 9), images()
    average = Averaged(module, Members([copy.deepcopy(net.state_dict()) for net in nets]))
    for _ in range(3):
        average(x)
    module[3].double().register_forward_pre_hook(lambda _, args: (args[0].double(),))
    assert average(x).dtype == torch.float64
    assert torch.allclose(average(x).exp(), explicit(nets, x).double(), atol=1e-6, rtol=0)
    nn.utils.parametrizations.weight_norm(module[1])
    with pytest.raises(ValueError, match="must be weights of Sequential, got member 0: it lacks"):
        average(x)


def test_a_forward_that_draws_random_numbers_draws_for_each_member():
    nets, module, x = [seeded(Draws, seed) for seed in range(3)], seeded(Draws, 9), images()
    average = Averaged(module, Members([net.state_dict() for net in nets]))
    torch.manual_seed(5)
    results = [average(x).exp() for _ in range(4)]
    torch.manual_seed(5)
    assert all(torch.allclose(result, explicit(nets, x), atol=1e-6, rtol=0) for result in results)


class Draws(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(nn.functional.dropout(x.flatten(1), 0.5, training=True))


def test_a_forward_that_writes_into_its_images():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(64, 3)

        def forward(self, x):
            return self.last(x.mul_(2).flatten(1))

    nets, x = [seeded(Writes, seed) for seed in range(3)], images()
    expected = torch.stack([net.last(2 * x.flatten(1)).softmax(1) for net in nets]).mean(0)
    for vectorize in (False, True):
        average = Averaged(seeded(Writes, 9), Members([net.state_dict() for net in nets], vectorize=vectorize))
        for _ in range(3):
            assert torch.allclose(average(x).exp(), expected, atol=1e-6, rtol=0)
            assert torch.equal(x, images())
