import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging import members, placement
from lightning_trainingkit.nn.averaging.averaged import Averaged, Views
from lightning_trainingkit.nn.averaging.members import Members
from lightning_trainingkit.nn.averaging.placement import Relocation, fits_on
from tests.nn.nets import found, images, other, resnet, seeded, small


def test_members_come_in_turn_where_they_do_not_fit(monkeypatch):
    nets = [seeded(small, seed) for seed in range(3)]
    others = [seeded(other, seed) for seed in range(2)]
    module, x = seeded(small, 3).double(), images().double()
    given = [nets[0].state_dict(), others[0], nets[1].state_dict(), others[1], nets[2].state_dict()]
    expected = Averaged(module, Members(given))(x)
    for net in others:
        net.float()
    before = [found(net) for net in others]
    monkeypatch.setattr(members, "fits_on", lambda *_: False)
    held, put_back = [], members._Bound.put_back
    monkeypatch.setattr(members._Bound, "put_back", lambda self: (held.append(list(self.fetched)), put_back(self))[1])
    source = Members(given)
    average = Averaged(module, [source, Views("flip")])
    for _ in range(2):
        average(x)
    # each stays for all views, and is there alone
    assert held[1:] == [[0], [1], [2], [3], [4], [0], [1], [2], [3]]
    assert torch.equal(Averaged(module, Members(given))(x), expected)
    source.put_back()
    for net in others:
        net.float()
    assert [found(net)["values"] for net in others] == [each["values"] for each in before]
    weights = Members([net.state_dict() for net in nets])
    assert weights.together(lambda *_: None, module, ((x,), {})) is None


def test_a_module_comes_back_from_another_device_as_it_was():
    module = seeded(resnet, 0)
    before = found(module)
    away = Relocation(module, torch.device("meta"), torch.float16)
    away.go()
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"meta"}
    away.put_back()
    away.put_back()
    assert found(module) == before
    module.fc.to("meta")  # is spread over devices already: it knows why
    Relocation(module, torch.device("meta"), None).go()
    assert module.conv1.weight.device.type == "cpu"


def test_a_module_that_cannot_be_moved_comes_back():
    class Stubborn(nn.Linear):
        def _apply(self, fn, recurse=True):
            if self.weight.dtype == torch.float64:
                return super()._apply(fn, recurse)
            super()._apply(fn, recurse)
            raise torch.OutOfMemoryError

    module = nn.Sequential(nn.Linear(2, 2), Stubborn(2, 2))
    before = found(module)
    with pytest.raises(torch.OutOfMemoryError):
        Relocation(module, torch.device("cpu"), torch.float64).go()
    assert found(module) == before


def test_half_of_the_free_memory_is_for_members(monkeypatch):
    class Backend:
        mem_get_info = staticmethod(lambda device: (800, 10_000))
        memory_reserved = staticmethod(lambda device: 500)
        memory_allocated = staticmethod(lambda device: 300)

    assert fits_on(torch.device("cpu"), 10**18)
    monkeypatch.setattr(placement.torch, "get_device_module", lambda device: Backend)
    assert [fits_on(torch.device("cuda"), needed) for needed in (500, 501)] == [True, False]
    monkeypatch.setattr(placement.torch, "get_device_module", lambda device: object)
    assert not fits_on(torch.device("mps"), 1)


def test_members_that_share_a_part_go_and_come_back_together():
    shared = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    members = [nn.Sequential(shared, nn.Linear(8, 3)) for _ in range(2)]
    before = [[(p, p.data_ptr()) for p in member.parameters()] for member in members]
    source = Members(members)
    averaged = Averaged(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).bfloat16(), source)
    averaged(torch.randn(2, 3, 2, 2, dtype=torch.bfloat16))
    assert {p.dtype for member in members for p in member.parameters()} == {torch.bfloat16}
    source.put_back()
    assert [[(p, p.data_ptr()) for p in member.parameters()] for member in members] == before
    assert {p.dtype for member in members for p in member.parameters()} == {torch.float32}
