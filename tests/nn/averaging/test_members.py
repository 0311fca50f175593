import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging.averaged import Averaged
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.averaging.members import Members
from tests.nn.nets import Recurrent, Tied, explicit, found, images, other, parametrised, resnet, seeded, small


def spied(module, calls):
    module.register_forward_pre_hook(lambda *_: calls.append(module))
    return module


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
    result = Averaged(module, Members(weights, weights=[0.5, 0.5, 0.0]))(images())
    assert len(calls) == 4
    assert torch.equal(result, Averaged(module, Members(weights[:2]))(images()))


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
    assert len(pickle.dumps(source)) < 1.2 * len(pickle.dumps(source.members))  # the copies stay behind


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
    for one, two in zip(given, kept, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in two)
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


def test_a_module_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        net = seeded(small, 0)
    averaged = Averaged(net, Members([seeded(small, seed).state_dict() for seed in (1, 2)]))
    with pytest.raises(ValueError, match=r"0\.weight of the module was made in torch\.inference_mode"):
        averaged(torch.rand(2, 1, 8, 8))


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
