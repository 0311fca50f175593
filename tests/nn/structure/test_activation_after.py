import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from lightning_trainingkit.nn.structure.activation_after import activation_after
from lightning_trainingkit.nn.structure.head import find_head


def names(module, **kwargs):
    return {name: activation.name for name, activation in activation_after(module, **kwargs).known.items()}


class Calls(nn.Module):
    """Two layers with whatever stands between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.between = nn.Linear(4, 4), nn.Linear(4, 4), between

    def forward(self, x):
        return self.second(self.between(self.first(x)))


class Branching(nn.Module):
    """Cannot be traced: it asks for a value."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
        self.bare = nn.Linear(4, 4)

    def forward(self, x):
        return self.body(x) if x.sum() > 0 else self.bare(x)


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (functional.relu, "relu"),
        (torch.relu, "relu"),
        (torch.relu_, "relu"),
        (lambda x: x.relu(), "relu"),
        (lambda x: functional.relu(x, inplace=True), "relu"),
        (lambda x: functional.leaky_relu(x, 0.3), "leaky_relu"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: functional.gelu(functional.layer_norm(x, (4,))), "gelu"),
        (lambda x: torch.tanh(functional.dropout(x, 0.5).reshape(x.shape[0], -1).permute(1, 0)), "tanh"),
        (lambda x: functional.silu(torch.cat([x, x], 1).chunk(2, 1)[0] + x), "silu"),
        (lambda x: functional.glu(torch.cat([x, x], 1)), "glu"),
        (nn.Sequential(nn.Identity(), nn.BatchNorm1d(4), nn.Hardswish(inplace=True)), "hardswish"),
        (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.PReLU()), "prelu"),
        (nn.LayerNorm(4), "linear"),
        (lambda x: torch.zeros(x.size(0), 4).relu() + functional.softmax(x, 1), "linear"),
        (lambda x: (x @ x.T @ x).relu(), "linear"),
    ],
)
def test_activation_between_two_layers(between, name):
    assert names(Calls(between)) == {"first": name, "second": "linear"}


def test_gain_comes_from_the_call_itself():
    gains = {
        name: activation_after(Calls(between)).known["first"].gain
        for name, between in {
            "slope": lambda x: functional.leaky_relu(x, 0.3),
            "clamp": lambda x: x.clamp(min=0),
            "random": lambda x: functional.rrelu(x, training=True),
            "tanh gelu": nn.GELU(approximate="tanh"),
            "channels": nn.PReLU(2),
        }.items()
    }
    assert gains["slope"] == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.3))
    assert gains["random"] == pytest.approx(nn.init.calculate_gain("leaky_relu", (1 / 8 + 1 / 3) / 2), abs=1e-6)
    assert gains["clamp"] == pytest.approx(2**0.5, abs=1e-6)
    assert gains["tanh gelu"] == pytest.approx(1.5335, abs=1e-3)
    assert gains["channels"] == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.25), abs=1e-6)


@pytest.mark.parametrize(
    ("model", "activations", "head"),
    [
        ("resnet18", {"relu": 20, "linear": 1}, "fc"),
        ("vgg11", {"relu": 10, "linear": 1}, "classifier.6"),
        ("vit_b_16", {"gelu": 12, "linear": 26}, "heads.head"),
        ("densenet121", {"relu": 120, "linear": 1}, "classifier"),
        ("convnext_tiny", {"gelu": 18, "linear": 41}, "classifier.2"),
        ("mobilenet_v3_small", {"hardswish": 19, "relu": 14, "hardsigmoid": 9, "linear": 12}, "classifier.3"),
        ("swin_t", {"gelu": 12, "linear": 41}, "head"),  # lends its weights to a function
    ],
)
def test_torchvision(model, activations, head):
    with torch.device("meta"):
        net = getattr(torchvision.models, model)()
    found = list(names(net).values())
    assert {name: found.count(name) for name in activations} == activations
    assert not activation_after(net).unknown
    assert find_head(net) == head


@pytest.mark.parametrize(
    ("model", "activations", "head"),
    [("resnet18", {"relu": 20, "linear": 1}, "fc"), ("vit_tiny_patch16_224", {"gelu": 12, "linear": 38}, "head")],
)
def test_timm(model, activations, head):
    timm = pytest.importorskip("timm")
    net = timm.create_model(model, pretrained=False)
    found = list(names(net).values())
    assert {name: found.count(name) for name in activations} == activations
    assert find_head(net) == head


def test_agrees_with_the_modules_that_hooks_see():
    net = torchvision.models.vgg11(num_classes=3).eval()
    order = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ReLU):
            module.register_forward_hook(lambda m, args, out, name=name: order.append((name, type(m))))
    net(torch.zeros(1, 3, 32, 32))
    kinds = {name: after is nn.ReLU for (name, kind), (_, after) in zip(order, [*order[1:], ("", None)], strict=True)}
    found = names(net)
    assert found == {name: "relu" if kinds[name] else "linear" for name in found}


def test_transformer_layers_are_reached_inside_an_encoder_that_cannot_be_traced():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), 2)
    found = names(nn.Sequential(nn.Linear(4, 8), encoder, nn.ReLU(), nn.Linear(8, 2)))
    assert found["0"] == "linear"
    assert found["1.layers.1.linear1"] == "gelu"
    assert found["1.layers.1.self_attn.out_proj"] == "linear"


def test_a_part_that_cannot_be_traced_hides_only_itself():
    result = activation_after(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), Branching(), nn.Linear(4, 2)))
    assert {name: a.name for name, a in result.known.items()} == {
        "0": "tanh",
        "3.body.0": "gelu",
        "3.body.2": "linear",
        "4": "linear",
    }
    assert "followed by 3: the forward of Branching cannot be traced" in result.unknown["2"]
    assert "the forward of Branching cannot be traced" in result.unknown["3.bare"]


def test_no_forward():
    module = nn.Module()
    module.encoder = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    module.parts = nn.ModuleList([nn.Sequential(nn.Linear(2, 4), nn.ELU()), nn.Linear(4, 4)])
    result = activation_after(module)
    assert {n: a.name for n, a in result.known.items()} == {
        "encoder.0": "relu",
        "encoder.2": "linear",
        "parts.0.0": "elu",
    }
    assert result.unknown == {"parts.1": "Module has no forward"}
    assert find_head(module) == "parts.1"


def test_layers_that_the_forward_does_not_call_are_found_below():
    class Encoding(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
            self.decoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 4))

        def forward(self, x, features=False, mask=None):
            return x if features else self.encoder(x)

    assert names(Encoding()) == {"encoder.0": "relu", "encoder.2": "linear", "decoder.0": "tanh", "decoder.2": "linear"}
    assert find_head(Encoding()) == "encoder.2"
    assert names(Encoding(), skip=(nn.Sequential,)) == {}


def test_the_module_is_left_as_found():
    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.register_buffer("steps", torch.tensor(0))

        def forward(self, x):
            self.steps.add_(1)
            self.features = self.layer(x) + torch.randn(4)
            return self.norm(self.features).relu()

    net = Noting()
    state, before = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert names(net) == {"layer": "relu"}
    assert torch.equal(torch.get_rng_state(), before)
    assert not hasattr(net, "features")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()
    copy.deepcopy(net), pickle.dumps(net.state_dict())


def test_parametrised_shared_and_single_layers():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Mish(), shared, nn.ReLU(), shared)
    assert names(net) == {"0": "mish", "2": "relu"}
    assert find_head(nn.Linear(4, 4)) == ""


def test_no_layer():
    with pytest.raises(ValueError, match="`module` must have a linear or convolutional layer, got ReLU"):
        find_head(nn.ReLU())
