import copy

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging import vectorized
from lightning_trainingkit.nn.averaging.average import Averaging
from lightning_trainingkit.nn.averaging.averaged import Averaged, Views
from lightning_trainingkit.nn.averaging.members import Members
from tests.nn.nets import Recurrent, Tied, clock, explicit, found, images, other, parametrised, seeded, small


def test_one_forward_for_all_members_gives_the_same_and_is_kept_where_it_is_faster(monkeypatch):
    nets, x = [seeded(small, seed) for seed in range(4)], images()
    for loop, together, faster in ((2.0, 1.0, True), (1.0, 0.98, False)):
        clock(monkeypatch, loop, together)
        module = seeded(small, 9)
        before = found(module)
        source = Members([net.state_dict() for net in nets], weights=[0.4, 0.3, 0.0, 0.3])
        average, chosen = Averaged(module, source), []
        with torch.inference_mode():
            average(x)  # the first call is always one by one
            for _ in range(7):
                result = average(x).exp()
                chosen += source._bound.vmapped.chosen.values()
                assert torch.allclose(result, explicit(nets, x, [0.4, 0.3, 0.0, 0.3]), atol=1e-6, rtol=0)
            average(x[:2])
        assert chosen == [None] * 4 + [faster] * 3
        assert list(source._bound.vmapped.chosen.values()) == [faster, None]  # by shape
        assert found(module) == before


def test_an_end_comes_at_once_if_one_forward_takes_twice_as_long(monkeypatch):
    clock(monkeypatch, 1.0, 2.1)
    source = Members([seeded(small, seed).state_dict() for seed in range(2)])
    average = Averaged(seeded(small, 2), source)
    for _ in range(4):
        average(images())
    assert list(source._bound.vmapped.chosen.values()) == [False]


class Asking(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) if self.weight.sum() < 1e9 else x


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x.flatten(1)) + torch.eye(3)[self.calls % 3]


def spoil(module, how):
    if how == "hook":
        module[0].register_forward_hook(lambda *_: None)
    if how == "training":
        module[-1].train()
    if how == "forward":
        module[0].forward = module[0].forward
    if how == "compiled":
        module[0].compile(backend="eager")
    return module


@pytest.mark.parametrize("how", ["hook", "training", "forward", "compiled", "large", "no room", "asks", "differs"])
def test_members_run_one_by_one_where_one_forward_is_out_of_the_question(how, monkeypatch):
    clock(monkeypatch, 100.0, 1.0)
    if how == "large":
        monkeypatch.setattr(vectorized, "LIMIT", 6 * 4 * 3 * (3 * 4 * 36 + 2 * 144 + 3) - 1)
    if how == "no room":
        monkeypatch.setattr(vectorized, "fits_on", lambda *_: False)
    make = {"asks": lambda: Asking(64, 3), "differs": lambda: Counting(64, 3)}.get(how, small)
    source = Members([seeded(make, seed).state_dict() for seed in range(3)])
    module, average = spoil(seeded(make, 3), how), Averaging([source])  # in the module's own mode
    for _ in range(6):
        average(lambda called, arguments: called(*arguments[0]), module, ((images(),), {}))
    assert list(source._bound.vmapped.chosen.values()) == [False]


def test_a_limit_that_is_just_large_enough(monkeypatch):
    clock(monkeypatch, 100.0, 1.0)
    monkeypatch.setattr(vectorized, "LIMIT", 6 * 4 * 3 * (3 * 4 * 36 + 2 * 144 + 3))
    source = Members([seeded(small, seed).state_dict() for seed in range(3)])
    average = Averaged(seeded(small, 3), source)
    for _ in range(6):
        average(images())
    assert list(source._bound.vmapped.chosen.values()) == [True]


@pytest.mark.parametrize("order", [1, -1])
def test_members_times_views_whatever_the_order_and_the_choice(order, monkeypatch):
    clock(monkeypatch, 2.0, 1.0)
    nets, x = [seeded(small, seed) for seed in range(3)], images()
    sources = [Members([net.state_dict() for net in nets]), Views("flip")][::order]
    average = Averaged(seeded(small, 3), sources)
    expected = (explicit(nets, x) + explicit(nets, x.flip(-1))) / 2
    for _ in range(6):
        assert torch.allclose(average(x).exp(), expected, atol=1e-6, rtol=0)
    members_source = next(source for source in sources if source.kind == "members")
    assert list(members_source._bound.vmapped.chosen.values()) == [True]
    single = Averaged(seeded(small, 3), sources, max_batch=4)
    assert torch.allclose(single(x).exp(), expected, atol=1e-6, rtol=0)
    assert average.names[:2] == ["member 0 x identity", "member 0 x hflip"]


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
    for _ in range(8):
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
def test_members_stand_in_the_place_of_tensors_where_that_gives_the_same(make):
    nets, x = [seeded(make, seed) for seed in range(3)], images()
    module, source = seeded(make, 9), Members([net.state_dict() for net in nets])
    before, average = found(module), Averaged(module, source)
    for _ in range(4):
        assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
        assert found(module) == before
    (trial,) = source._bound.vmapped._trials.values()
    assert trial.replacing is (make not in (Aliased, Recurrent))  # a list holds the weights of both
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
def test_forwards_that_keep_tensors_of_their_own(make):
    nets, module = [seeded(make, seed) for seed in range(3)], seeded(make, 9)
    average, before = Averaged(module, Members([copy.deepcopy(net.state_dict()) for net in nets])), found(module)
    for number in range(7):
        x = images(seed=number) * (1 if number < 5 else 100)
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


def test_what_a_forward_keeps_in_containers_is_of_single_members(monkeypatch):
    clock(monkeypatch, 2.0, 1.0)
    nets, module = [seeded(Collects, seed) for seed in range(3)], seeded(Collects, 9)
    average = Averaged(module, Members([net.state_dict() for net in nets]))
    for _ in range(7):
        average(images())
    assert len(module.outputs) == 7 * 3
    assert all(each.shape == (6, 3) and each.sum().isfinite() for each in module.outputs)


def test_a_module_that_has_changed_since_is_looked_at_again(monkeypatch):
    clock(monkeypatch, 2.0, 1.0)
    nets, module = [seeded(small, seed) for seed in range(3)], seeded(small, 9)
    average, x = Averaged(module, Members([net.state_dict() for net in nets])), images()
    for _ in range(6):
        average(x)
    module[0] = nn.Conv2d(1, 4, 3)
    assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
    average.double()
    assert torch.allclose(average(x.double()).exp(), explicit(nets, x).double(), atol=1e-6, rtol=0)
    average.float()
    for _ in range(6):
        average(x)
    assert True in average.sources[0]._bound.vmapped.chosen.values()
    seen = []
    module[1].register_forward_hook(lambda _, __, out: seen.append(out.sum().item()))
    assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)
    assert len(seen) == 3


def test_a_part_that_was_cast_or_has_another_weight_is_seen():
    nets, module, x = [seeded(other, seed) for seed in range(2)], seeded(other, 9), images()
    average = Averaged(module, Members([copy.deepcopy(net.state_dict()) for net in nets]))
    for _ in range(6):
        average(x)
    module[3].double().register_forward_pre_hook(lambda _, args: (args[0].double(),))
    assert average(x).dtype == torch.float64
    assert torch.allclose(average(x).exp(), explicit(nets, x).double(), atol=1e-6, rtol=0)
    nn.utils.parametrizations.weight_norm(module[1])
    with pytest.raises(ValueError, match="must be weights of Sequential, got member 0: it lacks"):
        average(x)


def test_the_choice_draws_no_random_numbers(monkeypatch):
    class Draws(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(64, 3)

        def forward(self, x):
            return self.last(nn.functional.dropout(x.flatten(1), 0.5, training=True))

    nets, module, x = [seeded(Draws, seed) for seed in range(3)], seeded(Draws, 9), images()
    average = Averaged(module, Members([net.state_dict() for net in nets]))
    torch.manual_seed(5)
    results = [average(x).exp() for _ in range(6)]
    torch.manual_seed(5)
    assert all(torch.allclose(result, explicit(nets, x), atol=1e-6, rtol=0) for result in results)
