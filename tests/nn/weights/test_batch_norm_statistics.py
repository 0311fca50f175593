import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit.nn.weights.batch_norm_statistics import reestimate_batch_norm
from tests.process import Process


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5)
    )
    net[1].running_mean.fill_(7.0)  # nothing of the old statistics may be left
    return net


def images(n=24, seed=0):
    return 3 * torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) + 100


def snapshot(net):
    return (
        {name: value.clone() for name, value in net.state_dict().items()},
        [module.training for module in net.modules()],
        [getattr(module, "momentum", None) for module in net.modules()],
        [len(module._forward_pre_hooks) for module in net.modules()],
    )


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    assert one[1:] == other[1:]


@given(sizes=st.lists(st.integers(2, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_the_first_layer_has_the_mean_and_the_variance_of_all_values(sizes, seed):
    x = images(sum(sizes), seed)
    net = make_net()
    reestimate_batch_norm(net, x.split(sizes))
    values = net[0](x).detach().double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[1].running_mean.double(), values.mean(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(net[1].running_var.double(), values.var(1), rtol=1e-5, atol=1e-5)
    assert net[1].num_batches_tracked == len(sizes)


def test_later_layers_see_what_they_would_in_training():
    x = images(20)
    net = make_net()
    reestimate_batch_norm(net, x.split([12, 8]))
    seen = [copy.deepcopy(net).train()[:5](part) for part in x.split([12, 8])]
    values = torch.cat(seen).detach().double()
    torch.testing.assert_close(net[5].running_mean.double(), values.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net[5].running_var.double(), values.var(0), rtol=1e-5, atol=1e-5)


def test_equals_torch_on_equal_batches_but_for_the_spread_between_their_means():
    batches = images(24).split(8)
    net, theirs = make_net(), make_net()
    within = []  # of each layer, each batch's variance as torch averages it
    theirs[1].register_forward_pre_hook(lambda _, args: within.append(args[0].transpose(0, 1).flatten(1)))
    update_bn(batches, theirs)
    reestimate_batch_norm(net, batches)
    for layer in (1, 5):
        torch.testing.assert_close(net[layer].running_mean, theirs[layer].running_mean, rtol=1e-5, atol=1e-4)
        assert net[layer].num_batches_tracked == theirs[layer].num_batches_tracked == 3
    n = within[0].shape[1]
    torch.testing.assert_close(theirs[1].running_var, torch.stack([x.var(1) for x in within]).mean(0))
    between = torch.stack([x.mean(1) for x in within]).var(0, correction=0) * 3 * n
    expected = (theirs[1].running_var * 3 * (n - 1) + between) / (3 * n - 1)
    torch.testing.assert_close(net[1].running_var, expected, rtol=1e-5, atol=1e-5)


def test_equals_torch_on_one_batch_in_every_layer():
    net, theirs = make_net(), make_net()
    update_bn([images()], theirs)
    reestimate_batch_norm(net, [images()])
    torch.testing.assert_close(net.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-5)


def test_a_smaller_last_batch_does_not_bias_as_it_does_in_torch():
    x = torch.cat([torch.zeros(98, 1), torch.full((2, 1), 50.0)])
    ours, theirs = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    reestimate_batch_norm(ours, x.split(98))
    update_bn(x.split(98), theirs)
    assert ours.running_mean.item() == pytest.approx(1.0)
    assert theirs.running_mean.item() == pytest.approx(25.0)


def test_only_the_statistics_change_and_dropout_is_off():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=None, affine=False), nn.Linear(3, 2)).train()
    net[0].eval()
    before = snapshot(net)
    x = torch.randn(9, 3, requires_grad=True)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    reestimate_batch_norm(net, [x])
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None
    assert net[1].running_mean.grad_fn is None
    torch.testing.assert_close(net[1].running_mean, x.detach().mean(0))
    after = snapshot(net)
    assert after[1:] == before[1:]
    assert torch.equal(after[0]["2.weight"], before[0]["2.weight"])


@pytest.mark.parametrize("raises", [ArithmeticError, KeyboardInterrupt])
def test_whatever_raises_leaves_all_as_it_was(raises):
    def batches():
        yield images()
        raise raises

    net = make_net()
    net[5].eval()
    before = snapshot(net)
    with pytest.raises(raises):
        reestimate_batch_norm(net, batches())
    assert_same(snapshot(net), before)


def test_a_data_loader_and_a_forward_of_ones_own():
    data = TensorDataset(images(10), torch.arange(10))
    net, own = make_net(), make_net()
    reestimate_batch_norm(net, DataLoader(data, 4))
    reestimate_batch_norm(own, [{"x": x} for x, _ in DataLoader(data, 4)], forward=lambda batch: own(batch["x"]))
    torch.testing.assert_close(own.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_layers_that_are_left_out_and_one_that_is_called_twice():
    shared = nn.BatchNorm1d(2)
    net = nn.Sequential(shared, nn.ReLU(), shared, nn.BatchNorm1d(2))
    x = torch.randn(30, 2)
    reestimate_batch_norm(net, [x], layers=[shared])
    once = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(shared.running_mean, torch.cat([x, once.relu()]).mean(0))
    assert torch.equal(net[3].running_mean, torch.zeros(2))
    assert net[3].num_batches_tracked == 0


def test_a_layer_that_is_not_called_keeps_its_statistics():
    net = nn.ModuleDict({"used": nn.BatchNorm1d(2), "unused": nn.BatchNorm1d(2)})
    reestimate_batch_norm(net, [torch.randn(4, 2) + 3], forward=net["used"])
    assert net["used"].running_mean.min() > 1
    assert net["unused"].running_mean.tolist() == [0, 0]


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_every_kind_of_layer(kind):
    layer = kind(3)
    reestimate_batch_norm(layer, images(10).split(5))
    torch.testing.assert_close(layer.running_var, images(10).transpose(0, 1).flatten(1).var(1))


def test_timm_layers_with_their_activation_inside():
    timm = pytest.importorskip("timm")
    layer = timm.layers.BatchNormAct2d(3)
    reestimate_batch_norm(layer, images(10).split(5))
    torch.testing.assert_close(layer.running_mean, images(10).mean((0, 2, 3)))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_module_that_was_called_before(in_place):
    net, plain = make_net(), make_net()
    called = torch.compile(net, backend="eager")
    if in_place:
        net.compile(backend="eager")
        called = net
    called.eval()(images())
    reestimate_batch_norm(called, [images()])
    reestimate_batch_norm(plain.eval(), [images()])
    torch.testing.assert_close(net.state_dict(), plain.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(called(images()), plain(images()))


def test_half_precision():
    net = nn.Sequential(nn.BatchNorm1d(2)).bfloat16()
    x = (torch.randn(4000, 2) + 5).bfloat16()
    reestimate_batch_norm(net, x.split(100))
    assert net[0].running_mean.dtype == torch.bfloat16
    torch.testing.assert_close(net[0].running_mean, x.double().mean(0).bfloat16())
    torch.testing.assert_close(net[0].running_var, x.double().var(0).bfloat16())


# Ranks

SCRIPT = """
import json, os, sys, time, torch
from pathlib import Path
from torch import distributed, nn
from lightning_trainingkit.nn.weights.batch_norm_statistics import reestimate_batch_norm

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
x = torch.arange(40.0).reshape(20, 2).split([2, 4, 6, 8])
mine = x[:3] if rank == 0 else x[3:]
net = nn.Sequential(nn.BatchNorm1d(2))
wrapped = nn.parallel.DistributedDataParallel(net)
found = []
for batches, module in ((mine, net), (mine, wrapped), (x if rank else [], net)):
    reestimate_batch_norm(module, batches)
    found.append([net[0].running_mean.tolist(), net[0].running_var.tolist(), net[0].num_batches_tracked.item()])
try:
    reestimate_batch_norm(net, [])
except ValueError as error:
    found.append(str(error))
Path(folder, f"{rank}.tmp").write_text(json.dumps(found))
Path(folder, f"{rank}.tmp").rename(Path(folder, f"{rank}.json"))
# The first rank that closes its connections would abort another one that still reads from them.
while not Path(folder, f"{1 - rank}.json").exists():
    time.sleep(0.01)
os._exit(0)
"""


def test_two_ranks_with_unequal_numbers_of_batches_end_equal(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ranks = [Process(tmp_path / "script.py", tmp_path, rank) for rank in range(2)]
    assert [rank.wait().returncode for rank in ranks] == [0, 0]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one == other
    x = torch.arange(40.0).reshape(20, 2)
    for mean, var, batches in one[:3]:
        assert mean == x.mean(0).tolist()
        assert var == x.var(0).tolist()
        assert batches == 4
    assert one[3].startswith("`batches` must give at least one batch")


# Bad input


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Linear(1, 1), "must have a BatchNorm with running statistics, got Linear with no BatchNorm"),
        (nn.BatchNorm1d(2, track_running_stats=False), "got BatchNorm1d with 1 without any"),
        (nn.Sequential(nn.LazyBatchNorm1d()), "`0` must have a shape, got a lazy layer"),
    ],
)
def test_nothing_to_estimate(net, message):
    with pytest.raises(ValueError, match=message):
        reestimate_batch_norm(net, [torch.randn(3, 2)])


def test_no_batch():
    with pytest.raises(ValueError, match="`batches` must give at least one batch, got none"):
        reestimate_batch_norm(make_net(), iter([]))


def test_a_forward_that_calls_none():
    with pytest.raises(ValueError, match="`forward` must call a BatchNorm, got one that calls none of: 1, 5"):
        reestimate_batch_norm(make_net(), [images()], forward=lambda batch: None)


def test_a_batch_of_one():
    net = make_net()
    before = snapshot(net)
    with pytest.raises(ValueError, match=r"more than one value per channel, got an input of shape \(1, 5\) at 5"):
        reestimate_batch_norm(net, images(9).split(4))
    assert_same(snapshot(net), before)
