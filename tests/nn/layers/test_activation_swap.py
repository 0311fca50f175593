import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_trainingkit.nn import Maxout, replace_activation


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)

    def forward(self, x):
        return functional.relu(self.fc2(self.act(self.fc1(x))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.act(self.conv(x) + x).mean((2, 3)))


class Gated(nn.Module):
    """Squeeze and excitation with a sigmoid as gate, and another one as activation."""

    def __init__(self):
        super().__init__()
        self.fc, self.gate, self.act, self.head, self.out = (
            *(nn.Linear(4, 4), nn.Sigmoid(), nn.Sigmoid(), nn.Linear(4, 1)),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.out(self.head(self.act(x * self.gate(self.fc(x)))))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return functional.gelu(self.fc(x)) if x.sum() > 0 else self.act(x)


def conv_net():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(4, 6, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(96, 2))


def snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("leaky_relu(0.2)", nn.LeakyReLU(0.2)),
        ("elu", nn.ELU()),
        ("sigmoid", nn.Sigmoid()),
        ("tanh", nn.Tanh()),
        ("gelu", nn.GELU()),
        ("silu", nn.SiLU()),
        ("softplus(2)", nn.Softplus(2)),
        ("linear", nn.Identity()),
    ],
)
def test_activations_without_parameters_keep_the_keys_and_compute_what_torch_does(name, reference):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    before, keys = copy.deepcopy(net), list(net.state_dict())
    done = replace_activation(net, name)
    assert list(net.state_dict()) == keys
    assert not done.rebuilds
    x = torch.randn(5, 4)
    assert torch.equal(net(x), before[2](reference(before[0](x))))
    done.undo()
    assert torch.equal(net(x), before(x))


@pytest.mark.parametrize("name", ["maxout", "maxout(3)", "prelu", "selu"])
@pytest.mark.parametrize("init", [False, True])
def test_undo_restores_to_the_last_bit(name, init):
    net = conv_net().eval()
    x = torch.randn(2, 3, 8, 8)
    before, output = snapshot(net), net(x)
    replace_activation(net, name, init=init).undo()
    assert torch.equal(net(x), output)
    assert all(map(operator.eq, before, net.state_dict()))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(each.training for each in net.modules())


def test_maxout_says_what_it_adds_and_trains():
    net = conv_net()
    parameters = sum(each.numel() for each in net.parameters())
    done = replace_activation(net, {"2": "maxout"})
    assert isinstance(net[2], Maxout)
    assert done.resized_keys == [f"0.{name}" for name in ("weight", "bias")] + [
        f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    ]
    assert sum(each.numel() for each in net.parameters()) == parameters + done.added_parameters
    assert done.added_parameters == sum(
        each.numel() for each in nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).parameters()
    )
    net(torch.randn(4, 3, 8, 8)).sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    with pytest.raises(ValueError, match="`undo` must be called before"):
        done.undo()


def test_prelu_says_its_new_keys():
    assert replace_activation(conv_net(), {"2": "prelu(0.1)"}).new_keys == ["2.weight"]


def test_selu_brings_alpha_dropout_and_its_initialisation():
    net = conv_net()
    replace_activation(net, "selu", init=True)
    assert [type(net[i]) for i in (3, 7)] == [nn.FeatureAlphaDropout, nn.AlphaDropout]
    assert (net[3].p, net[7].p) == (0.2, 0.5)
    deep = nn.Sequential(*(layer for _ in range(20) for layer in (nn.Linear(128, 128), nn.ReLU())), nn.Linear(128, 2))
    replace_activation(deep, "selu", init=True)
    std, mean = torch.std_mean(deep[:-1](torch.randn(500, 128)))
    assert std.item() == pytest.approx(1, abs=0.15)  # with torch's own initialisation it is 0.00
    assert mean.item() == pytest.approx(0, abs=0.1)


def test_the_last_pattern_wins():
    net = conv_net()
    replace_activation(net, {"*": "tanh", "5": "elu(0.5)"})
    assert [repr(net[i]) for i in (2, 5)] == ["Tanh()", "ELU(alpha=0.5)"]


def test_gates_and_outputs_stay_unless_named():
    net = Gated()
    replace_activation(net, "relu")
    assert [type(each) for each in (net.gate, net.act, net.out)] == [nn.Sigmoid, nn.ReLU, nn.Sigmoid]
    net = Gated()
    replace_activation(net, {"gate": "hardsigmoid"})
    assert isinstance(net.gate, nn.Hardsigmoid)


def test_functions_are_named_where_a_pattern_matches_them():
    net = nn.Sequential(Functional(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"match functions: relu after 0\.fc2\."):
        replace_activation(net, "gelu")
    assert isinstance(net[2], nn.ReLU)
    replace_activation(net, {"2": "gelu", "0.act": "tanh"})
    assert isinstance(net[0].act, nn.Tanh)
    with pytest.raises(ValueError, match="match functions: gelu in forward"):
        replace_activation(Untraceable(), "silu")


@pytest.mark.parametrize(
    ("net", "rule"),
    [
        (Residual(), "`act` must follow one linear .* got one whose input comes from `add`"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)), r"comes from 1 \(LayerNorm\)"),
        (nn.Sequential(nn.Linear(4, 4), act := nn.ReLU(), nn.Linear(4, 4), act), "calls 2 times"),
    ],
)
def test_places_that_cannot_take_maxout(net, rule):
    before = str(net)
    with pytest.raises(ValueError, match=rule):
        replace_activation(net, "maxout")
    assert str(net) == before


def tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    return net


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.ReLU()
        self.steps = [self.fc, self.act]

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


@pytest.mark.parametrize(
    ("make", "to", "rule"),
    [
        (conv_net, {"layer1.*": "relu"}, r"'layer1\.\*', which matches none\. Nearest names: "),
        (conv_net, "rleu", "`to` must be one of .*'rleu'. Nearest: relu"),
        (conv_net, "relu(0.1)", "with a number in parentheses where it takes one"),
        (conv_net, "maxout(1)", "an integer of at least 2 for maxout"),
        (conv_net, {}, "got an empty dict"),
        (tied, "maxout", r"shared as 2\.weight"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU()),
            "maxout",
            "ParametrizedLinear",
        ),
        (Hidden, "silu", "`steps` holds too"),
    ],
)
def test_bad_input(make, to, rule):
    net = make()
    with pytest.raises(ValueError, match=rule):
        replace_activation(net, to)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_refused_modules():
    part = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    for net, rule in {torch.jit.script(part): "TorchScript", nn.DataParallel(part): "without a wrapper"}.items():
        with pytest.raises((TypeError, ValueError), match=rule):
            replace_activation(nn.Sequential(net), {"0*": "silu"})


def test_hooks_are_not_lost():
    net = conv_net()
    net[2].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"`2` must have no hooks .* got 1, which would be lost"):
        replace_activation(net, "silu")


def test_twice():
    net = conv_net()
    replace_activation(net, "silu")
    with pytest.raises(ValueError, match="`2` must be a layer without another surgery"):
        replace_activation(net, "gelu")


def test_a_shared_module_is_replaced_in_all_its_places_and_a_compiled_model_works():
    act = nn.ReLU()
    net = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))
    compiled, x = torch.compile(net, backend="eager"), torch.randn(3, 4)
    before = compiled(x)
    replace_activation(compiled, "silu")
    assert net[1] is net[3]
    assert torch.equal(compiled(x), net(x))
    assert not torch.equal(compiled(x), before)


@pytest.mark.parametrize("to", ["maxout", "selu"])
def test_layers_inside_of_a_compiled_part_are_found(to):
    part = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.1))
    net = nn.Sequential(torch.compile(part, backend="eager"), nn.Linear(4, 2))
    done = replace_activation(net, to, init=True)
    assert type(part[1]) is {"maxout": Maxout, "selu": nn.SELU}[to]
    done.undo()
    assert type(part[1]) is nn.ReLU


@pytest.mark.parametrize(("name", "init"), [("selu", True), ("maxout", False)])
def test_layers_of_one_shape_get_different_draws(name, init):
    net = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(16, 16), nn.ReLU())), nn.Linear(16, 2))
    for layer in net[2:5:2]:
        layer.load_state_dict(net[0].state_dict())
    replace_activation(net, name, init=init)
    first, second, third = (net[place].weight[-1] for place in (0, 2, 4))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
