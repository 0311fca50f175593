import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging.averaged import Averaged, Views
from lightning_trainingkit.nn.averaging.members import Members
from lightning_trainingkit.nn.averaging.placement import Relocation
from tests.nn.nets import found, images, other, resnet, seeded, small


class Noted(nn.Module):
    """Notes how many of the members are away from home, in the dtype of the averaged module, whenever one runs."""

    def __init__(self, members, away):
        super().__init__()
        self.net, self.members, self.away = other(), [members], away

    def forward(self, x):
        self.away.append(sum(each.net[1].weight.dtype == torch.float64 for each in self.members[0]))
        return self.net(x)


@pytest.mark.parametrize(("offload", "together"), [(False, [1, 2, 3, 3, 3, 3]), (True, [1] * 6)])
def test_members_go_to_the_device_together_or_one_at_a_time_and_come_back(offload, together):
    members, away = [], []
    members += [seeded(lambda: Noted(members, away), seed) for seed in range(3)]
    before, x = [found(each) for each in members], images().double()
    source = Members(members, offload=offload)
    average = Averaged(seeded(small, 3).double(), [source, Views("flip")])
    results = [average(x) for _ in range(2)]
    assert away[::2] == together  # each stays for both views
    assert torch.equal(*results)
    source.put_back()
    assert [found(each) for each in members] == before


def test_offloaded_weights_and_modules_give_the_same_to_the_last_bit():
    nets, others = [seeded(small, seed) for seed in range(3)], [seeded(other, seed) for seed in range(2)]
    given = [nets[0].state_dict(), others[0], nets[1].state_dict(), others[1], nets[2].state_dict()]
    module, x, before = seeded(small, 3).double(), images().double(), [found(net) for net in (*nets, *others)]
    results = []
    for offload in (False, True):
        source = Members(given, offload=offload)
        average = Averaged(module, source)
        results += [average(x) for _ in range(3)]
        source.put_back()
        assert [found(net) for net in (*nets, *others)] == before
    assert all(torch.equal(result, results[0]) for result in results)


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


class Stubborn(nn.Linear):
    def _apply(self, fn, recurse=True):
        if self.weight.dtype == torch.float64:
            return super()._apply(fn, recurse)
        super()._apply(fn, recurse)
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_module_that_cannot_be_moved_comes_back():
    module = nn.Sequential(nn.Linear(2, 2), Stubborn(2, 2))
    before = found(module)
    with pytest.raises(torch.OutOfMemoryError):
        Relocation(module, torch.device("cpu"), torch.float64).go()
    assert found(module) == before


HINT = r"`members` must fit on the device together, got: CUDA out of memory. Set `offload=True`"


@pytest.mark.parametrize("vectorize", [False, True])
def test_out_of_memory_on_the_way_to_the_device_hints_at_offload(vectorize):
    members = [nn.Sequential(nn.Flatten(), Stubborn(64, 3)) for _ in range(2)]
    before = [found(each) for each in members]
    with pytest.raises(torch.OutOfMemoryError, match=HINT):
        Averaged(seeded(small, 0).double(), Members(members, vectorize=vectorize))(images().double())
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory.$"):
        Averaged(seeded(small, 0).double(), Members(members, offload=True))(images().double())
    assert [found(each) for each in members] == before


class Hungry(nn.Linear):
    limit = 3

    def forward(self, x):
        if len(x) > self.limit or (self.limit == 2 and torch._C._functorch.is_batchedtensor(self.weight)):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(x.flatten(1))


@pytest.mark.parametrize("options", [{}, {"vectorize": True}])
@pytest.mark.parametrize("as_modules", [False, True])
def test_out_of_memory_in_a_forward_hints_at_offload(options, as_modules):
    nets = [Hungry(64, 3) for _ in range(2)]
    module = Hungry(64, 3)
    before = found(module)
    average = Averaged(module, Members(nets if as_modules else [net.state_dict() for net in nets], **options))
    average(images(2))
    with pytest.raises(torch.OutOfMemoryError, match=HINT):
        average(images(4))
    assert found(module) == before


def test_out_of_memory_of_the_comparison_is_no_reason_to_leave_vectorize_out(monkeypatch):
    monkeypatch.setattr(Hungry, "limit", 2)
    with pytest.raises(torch.OutOfMemoryError, match=HINT):
        Averaged(Hungry(64, 3), Members([Hungry(64, 3) for _ in range(2)], vectorize=True))(images(2))


@pytest.mark.parametrize("offload", [False, True])
def test_members_that_share_a_part_go_and_come_back_together(offload):
    shared = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    members = [nn.Sequential(shared, nn.Linear(8, 3)) for _ in range(2)]
    before = [[(p, p.data_ptr()) for p in member.parameters()] for member in members]
    source = Members(members, offload=offload)
    averaged = Averaged(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).bfloat16(), source)
    averaged(torch.randn(2, 3, 2, 2, dtype=torch.bfloat16))
    away = [{p.dtype for p in member.parameters()} for member in members]
    assert away == [{torch.bfloat16, torch.float32} if offload else {torch.bfloat16}, {torch.bfloat16}]
    source.put_back()
    assert [[(p, p.data_ptr()) for p in member.parameters()] for member in members] == before
    assert {p.dtype for member in members for p in member.parameters()} == {torch.float32}
