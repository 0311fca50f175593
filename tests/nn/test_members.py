import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations

from lightning_trainingkit.nn import _away, _vmapped, members
from lightning_trainingkit.nn._averaging import Averaging
from lightning_trainingkit.nn._away import Away, fits
from lightning_trainingkit.nn._member_weights import OwnWeights, Slots
from lightning_trainingkit.nn.averaged import Averaged, Views
from lightning_trainingkit.nn.members import Members


def seeded(make, seed):
    torch.manual_seed(seed)
    net = make()
    for each in net.modules():
        if isinstance(each, nn.BatchNorm2d):  # as if it had been trained
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
    return net.eval()


def small():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)]
    return nn.Sequential(*layers)


def other():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


def resnet():
    return torchvision.models.resnet18(num_classes=5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.second(self.first(x.flatten(1)).relu()))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.last = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.lstm(x[:, 0])[0][:, -1])


def parametrised():
    return nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 8)), nn.Linear(8, 3))


def images(n=6, channels=1, size=8, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def explicit(nets, x, weights=None):
    with torch.no_grad():
        probabilities = torch.stack([net(x).float().softmax(1) for net in nets])
        weights = torch.tensor(weights) if weights else torch.full((len(nets),), 1 / len(nets))
        return (probabilities * weights[:, None, None]).sum(0)


def found(module):
    """What must be as it was: the tensors themselves, where their data lie, and the modes."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "tensors": {name: (id(t), t.data_ptr(), t.stride(), t.dtype, t.requires_grad) for name, t in tensors.items()},
        "values": {name: t.detach().flatten().view(torch.uint8).numpy().tobytes() for name, t in tensors.items()},
        "modes": [each.training for each in module.modules()],
    }


def spied(module, calls):
    module.register_forward_pre_hook(lambda *_: calls.append(module))
    return module


def clock(monkeypatch, loop, together):
    """Let each timed loop and each forward of all members take so long."""
    times = iter([t for k in range(1000) for t in (k * 100.0, k * 100.0 + loop, k * 100.0 + loop + together)])
    monkeypatch.setattr(_vmapped, "_now", lambda device: next(times))


@pytest.mark.parametrize("make", [small, Tied, Recurrent, parametrised])
@pytest.mark.parametrize("as_modules", [False, True])
def test_weights_and_modules_give_the_average_written_out(make, as_modules):
    nets, x = [seeded(make, seed) for seed in range(4)], images()
    module = copy.deepcopy(nets[3])
    before = found(module)
    given = [net if as_modules else net.state_dict() for net in nets[:3]]
    weights = [0.5, 0.3, 0.2]
    average = Averaged(module, Members(given, weights=weights))
    assert torch.allclose(average(x).exp(), explicit(nets[:3], x, weights), atol=1e-6, rtol=0)
    passes = average.each_pass(x)
    assert torch.equal(passes[1], nets[1](x).log_softmax(1))
    assert found(module) == before


def test_a_resnet_of_torchvision_in_inference_mode_can_be_trained_afterwards():
    nets, x = [seeded(resnet, seed) for seed in range(3)], images(3, 3, 32)
    module = seeded(resnet, 3)
    before = found(module)
    with torch.inference_mode():
        result = Averaged(module, Members([net.state_dict() for net in nets]))(x)
    assert torch.allclose(result.exp(), explicit(nets, x), atol=1e-6, rtol=0)
    assert found(module) == before
    module.train()(x).sum().backward()
    assert not any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers()))


def test_members_of_other_architectures_run_in_eval_mode_beside_weights():
    module, weights, another = seeded(small, 0), seeded(small, 1), seeded(other, 2).train()
    another[0].eval()
    another.append(nn.Dropout(0.9))
    before = found(another)
    average = Averaged(module, Members([weights.state_dict(), another, module]))(images())
    assert found(another) == before
    expected = explicit([weights, copy.deepcopy(another).eval(), module], images())
    assert torch.allclose(average.exp(), expected, atol=1e-6, rtol=0)


def test_what_raises_leaves_everything_as_it_was():
    class Raising(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            self.net(x)
            raise ArithmeticError

    module, another = Raising().eval(), Raising()
    before = [found(module), found(another)]
    sources = [
        Members([Raising().state_dict() for _ in range(2)]),
        Members([Raising().state_dict(), another]),
        Members([another]),
    ]
    for source in sources:
        with pytest.raises(ArithmeticError):
            Averaged(module, source)(images())
        source.put_back()
    assert [found(module), found(another)] == before


def test_members_without_weight_are_not_run_nor_moved():
    calls = []
    nets = [spied(seeded(other, seed), calls) for seed in range(3)]
    Averaged(small(), Members(nets, weights=[0.5, 0.0, 0.5]))(images())
    assert calls == [nets[0], nets[2]]
    module = spied(seeded(small, 0), calls)
    weights = [seeded(small, seed).state_dict() for seed in range(3)]
    source = Members(weights, weights=[0.5, 0.5, 0.0])
    result = Averaged(module, source)(images())
    assert len(calls) == 4
    assert torch.equal(result, Averaged(module, Members(weights[:2]))(images()))
    assert set(source._bound.fetched) == {0, 1}


@pytest.mark.parametrize("wrapped", [False, True])
def test_compiled_code_sees_the_members_and_is_compiled_once(wrapped):
    nets, x = [seeded(small, seed) for seed in range(3)], images()
    module = seeded(small, 3)
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    if wrapped:
        module = torch.compile(module, backend=backend)
    else:
        module.compile(backend=backend)
    average = Averaged(module, Members([net.state_dict() for net in nets]))
    with torch.inference_mode():
        results = [average(x) for _ in range(4)]
        assert torch.equal(module(x), seeded(small, 3)(x))
    for result in results:
        assert torch.allclose(result.exp(), explicit(nets, x), atol=1e-6, rtol=0)
    assert len(graphs) == 1


def test_autocast_does_not_keep_the_weights_of_the_member_before():
    nets, x = [seeded(small, seed) for seed in range(3)], images()
    module = seeded(small, 3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        own = module(x)
        result = Averaged(module, Members([net.state_dict() for net in nets]))(x)
        assert torch.equal(module(x), own)
        expected = explicit(nets, x)
    assert torch.allclose(result.exp(), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(result.exp(), own.float().softmax(1), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_members_get_the_dtype_of_the_module_and_modules_get_theirs_back(dtype):
    nets, another, x = [seeded(small, seed) for seed in range(2)], seeded(other, 2), images().to(dtype)
    module = seeded(small, 3).to(dtype)
    before = found(another)
    source = Members([*[net.state_dict() for net in nets], another])
    result = Averaged(module, source)(x)
    assert next(another.parameters()).dtype == dtype
    source.put_back()
    assert found(another) == before
    nets = [copy.deepcopy(net).to(dtype) for net in (*nets, another)]
    assert torch.allclose(result.exp().float(), explicit(nets, x), atol=1e-6, rtol=0)


def test_members_get_the_strides_of_the_module():
    module = seeded(resnet, 0).to(memory_format=torch.channels_last)
    member = seeded(resnet, 1)
    data = Slots(module).fit(member.state_dict())
    assert [each.stride() for each in data] == [each.stride() for each in Slots(module).tensors]
    assert data[0].stride() != member.conv1.weight.stride()
    own = OwnWeights(copy.deepcopy(member.state_dict()))
    assert Slots(member).fit(own)[0].data_ptr() == own["conv1.weight"].data_ptr()  # nothing to copy
    assert Slots(member).fit(dict(own))[0].data_ptr() != own["conv1.weight"].data_ptr()  # whoever may hold it


def test_members_come_in_turn_where_they_do_not_fit(monkeypatch):
    nets = [seeded(small, seed) for seed in range(3)]
    others = [seeded(other, seed) for seed in range(2)]
    module, x = seeded(small, 3).double(), images().double()
    given = [nets[0].state_dict(), others[0], nets[1].state_dict(), others[1], nets[2].state_dict()]
    expected = Averaged(module, Members(given))(x)
    for net in others:
        net.float()
    before = [found(net) for net in others]
    monkeypatch.setattr(members, "fits", lambda *_: False)
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
    away = Away(module, torch.device("meta"), torch.float16)
    away.go()
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"meta"}
    away.put_back()
    away.put_back()
    assert found(module) == before
    module.fc.to("meta")  # is spread over devices already: it knows why
    Away(module, torch.device("meta"), None).go()
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
        Away(module, torch.device("cpu"), torch.float64).go()
    assert found(module) == before


def test_half_of_the_free_memory_is_for_members(monkeypatch):
    class Backend:
        mem_get_info = staticmethod(lambda device: (800, 10_000))
        memory_reserved = staticmethod(lambda device: 500)
        memory_allocated = staticmethod(lambda device: 300)

    assert fits(torch.device("cpu"), 10**18)
    monkeypatch.setattr(_away.torch, "get_device_module", lambda device: Backend)
    assert [fits(torch.device("cuda"), needed) for needed in (500, 501)] == [True, False]
    monkeypatch.setattr(_away.torch, "get_device_module", lambda device: object)
    assert not fits(torch.device("mps"), 1)


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
        monkeypatch.setattr(_vmapped, "LIMIT", 6 * 4 * 3 * (3 * 4 * 36 + 2 * 144 + 3) - 1)
    if how == "no room":
        monkeypatch.setattr(_vmapped, "fits", lambda *_: False)
    make = {"asks": lambda: Asking(64, 3), "differs": lambda: Counting(64, 3)}.get(how, small)
    source = Members([seeded(make, seed).state_dict() for seed in range(3)])
    module, average = spoil(seeded(make, 3), how), Averaging([source])  # in the module's own mode
    for _ in range(6):
        average(lambda called, arguments: called(*arguments[0]), module, ((images(),), {}))
    assert list(source._bound.vmapped.chosen.values()) == [False]


def test_a_limit_that_is_just_large_enough(monkeypatch):
    clock(monkeypatch, 100.0, 1.0)
    monkeypatch.setattr(_vmapped, "LIMIT", 6 * 4 * 3 * (3 * 4 * 36 + 2 * 144 + 3))
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


def test_gradients_pass_through_modules_and_not_through_weights():
    x = images().requires_grad_()
    nets = [seeded(small, seed) for seed in range(2)]
    Averaged(nets[0], Members(nets))(x)[:, 0].sum().backward()
    assert x.grad.abs().sum() > 0
    assert not Averaged(nets[0], Members([net.state_dict() for net in nets]))(x).requires_grad


def test_buffers_that_are_not_saved_stay_those_of_the_module():
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.net = other()
            self.register_buffer("scale", torch.tensor(scale), persistent=False)
            self.register_buffer("none", None)

        def forward(self, x):
            return self.net(x) * self.scale

    member, module, x = Scaled(1.0), Scaled(3.0), images()
    result = Averaged(module, Members([member.state_dict()]))(x)
    assert torch.allclose(result, (3 * member(x)).log_softmax(1), atol=1e-6)


def test_it_pickles_and_is_copied_without_what_it_holds():
    source = Members([seeded(small, seed).state_dict() for seed in range(2)])
    average = Averaged(seeded(small, 2), source)
    expected = average(images())
    for each in (copy.deepcopy(average), pickle.loads(pickle.dumps(average))):
        assert torch.allclose(each(images()), expected, rtol=0, atol=1e-6)
    assert pickle.loads(pickle.dumps(source))._bound is None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: small()[:-1], r"it lacks 5.weight, 5.bias. For another architecture pass the built"),
        (lambda: small().append(nn.Linear(3, 3)), "it has besides 6.weight, 6.bias"),
        (lambda: other(), "it lacks 0.weight, 0.bias, 1.running_mean, 1.running_var and 3 more, it has besides"),
        (lambda: small()[:-1].append(nn.Linear(144, 7)), r"5.weight is \(7, 144\) and not \(3, 144\)"),
    ],
)
def test_weights_of_another_architecture_are_an_error_that_says_what_differs(make, text):
    source = Members([small().state_dict(), make().state_dict()], names=["first", "second"])
    with pytest.raises(ValueError, match="`members` must be weights of Sequential, got second: " + text):
        Averaged(small(), source)(images())


def test_weights_that_a_module_can_not_hold():
    untied = Tied()
    untied.second.weight = nn.Parameter(torch.zeros(64, 64))
    with pytest.raises(ValueError, match=r"first.weight and second.weight differ, which are one tensor in the module"):
        Averaged(Tied(), Members([untied.state_dict()]))(images())
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"1.weight of the module has no shape yet, call it once on a batch before"):
        Averaged(lazy, Members([other().state_dict()]))(images())

    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"scale": 2}

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match="_extra_state is no tensor"):
        Averaged(Extra(2, 3), Members([Extra(2, 3).state_dict()]))(torch.rand(2, 2))


def test_names_of_compiled_parts_are_those_of_the_parts():
    plain = seeded(small, 0)
    wrapped = nn.Sequential(torch.compile(seeded(small, 1), backend="eager"))
    weights = nn.Sequential(plain).state_dict()
    result = Averaged(wrapped, Members([weights]))(images())
    assert torch.allclose(result, plain(images()).log_softmax(1), atol=1e-6)
    result = Averaged(nn.Sequential(plain), Members([wrapped.state_dict()]))(images())
    assert torch.allclose(result, seeded(small, 1)(images()).log_softmax(1), atol=1e-6)


def test_wrong_arguments():
    net = small()
    with pytest.raises(ValueError, match="`members` must hold at least one member, got none"):
        Members([])
    with pytest.raises(TypeError, match=r"must be modules or sets of weights, got str. Load it first"):
        Members(["net.ckpt"])
    with pytest.raises(ValueError, match="`members` must differ, got member 1 twice"):
        Members([net, net])
    with pytest.raises(ValueError, match="`weights` must be 'uniform' or numbers, got 'greedy'"):
        Members([net], weights="greedy")
    with pytest.raises(ValueError, match="`weights` must be 1 numbers"):
        Members([net], weights=[0.5, 0.5])
    with pytest.raises(ValueError, match="sum to 1"):
        Members([net], weights=[0.5])
    with pytest.raises(ValueError, match=r"must return logits .* got tuple"):
        Averaged(nn.LSTM(8, 4), Members([nn.LSTM(8, 4).state_dict() for _ in range(2)]))(images()[:, 0])


def test_members_with_other_classes_are_named():
    with pytest.raises(ValueError, match=r"`members` must have the same classes, got 5 from member 1 and 3"):
        Averaged(small(), Members([small(), nn.Sequential(nn.Flatten(), nn.Linear(64, 5))]))(images())


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


def test_a_module_in_training_mode_runs_in_eval_and_nothing_is_written_to_what_was_given():
    class Counts(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    members, module, x = [Counts() for _ in range(2)], Counts(), torch.randn(4, 3, 8, 8)
    given = [dict(member.state_dict()) for member in members]
    kept = copy.deepcopy(given)
    found = Averaged(module, Members(given))(x)
    assert module.training
    for one, other in zip(given, kept, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
    expected = sum(member.eval()(x).softmax(1) for member in members).div(2).log()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("apply", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_weight_that_an_old_hook_computes_is_as_it_was(apply):
    def make():
        return nn.Sequential(nn.Flatten(), apply(nn.Linear(16, 3)))

    net, nets, x = seeded(make, 0), [seeded(make, seed) for seed in (1, 2)], torch.rand(5, 1, 4, 4)
    net(x)
    before = net[1].weight.detach().clone()
    found = Averaged(net, Members([each.state_dict() for each in nets]))(x)
    expected = torch.stack([each(x).softmax(1) for each in nets]).mean(0)
    torch.testing.assert_close(found.exp(), expected, rtol=0, atol=1e-6)
    assert torch.equal(net[1].weight, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_module_runs_members():
    nets, x = [seeded(small, seed) for seed in range(3)], torch.rand(5, 1, 8, 8)
    scripted = torch.jit.trace(nets[0], x)
    before = copy.deepcopy(scripted.state_dict())
    averaged = Averaged(scripted, Members([each.state_dict() for each in nets[1:]]))
    expected = torch.stack([each(x).softmax(1) for each in nets[1:]]).mean(0)
    for _ in range(3):
        torch.testing.assert_close(averaged(x).exp(), expected, rtol=0, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in scripted.state_dict().items())


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


def test_a_module_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        net = seeded(small, 0)
    averaged = Averaged(net, Members([seeded(small, seed).state_dict() for seed in (1, 2)]))
    with pytest.raises(ValueError, match=r"0\.weight of the module was made in torch\.inference_mode"):
        averaged(torch.rand(2, 1, 8, 8))


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


def test_members_stay_what_they_were_at_the_first_call():
    nets, x = [seeded(small, seed) for seed in range(2)], images()
    expected, module = explicit(nets, x), nets[0]
    average = Averaged(module, Members([net.state_dict() for net in nets]))
    for _ in range(3):
        assert torch.allclose(average(x).exp(), expected, atol=1e-6, rtol=0)
        with torch.no_grad():
            [each.add_(1) for net in nets for each in (*net.parameters(), net[1].running_mean)]


def test_weights_that_are_cached_by_parametrize_are_those_of_each_member():
    nets, x = [seeded(parametrised, seed) for seed in range(3)], images()
    average = Averaged(seeded(parametrised, 9), Members([net.state_dict() for net in nets]))
    for _ in range(4):
        with nn.utils.parametrize.cached():
            assert torch.allclose(average(x).exp(), explicit(nets, x), atol=1e-6, rtol=0)


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
