import copy
import pickle
import random

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.ops import DropBlock2d, DropBlock3d, StochasticDepth

from lightning_trainingkit.nn.averaging.averaged import Averaged, Views
from lightning_trainingkit.nn.averaging.random_masks import RandomMasks, random_layers


class Last(nn.Module):
    """Some layer, and two logits of what it returns; notes the modes that it is called in."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.norm = layer, nn.BatchNorm1d(2)
        self.seen = []

    def forward(self, x):
        self.seen.append({name for name, each in self.named_modules() if each.training})
        out = self.layer(x, x, x)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        out = (out[0] if isinstance(out, tuple) else out).flatten(1)
        return self.norm(torch.stack([out[:, ::2].sum(1), out[:, 1::2].sum(1)], 1))


class Functional(nn.Module):
    """Draws in a way that can't be seen."""

    def __init__(self):
        super().__init__()
        self.norm, self.rate = nn.BatchNorm1d(8), 0.5

    def forward(self, x):
        return F.dropout(self.norm(x), self.rate, self.training)


def images(size=16, n=3):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten()),
        *(nn.Dropout(0.5), nn.Linear(4 * 14 * 14, 5)),
    ).eval()


def modes(module):
    return {name: each.training for name, each in module.named_modules()}


def passes_differ(module, x, layers=None):
    passes = Averaged(module, RandomMasks(3, layers=layers)).each_pass(x)
    return not torch.equal(passes[0], passes[1]) and not torch.equal(passes[1], passes[2])


sequence, pixels, volume = (3, 5, 8), (3, 3, 17, 17), (3, 3, 9, 9, 9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout(0.5), sequence),
        (nn.Dropout1d(0.5), sequence),
        (nn.Dropout2d(0.5), pixels),
        (nn.Dropout3d(0.5), volume),
        (nn.AlphaDropout(0.5), sequence),
        (nn.FeatureAlphaDropout(0.5), pixels),
        (nn.RReLU(), sequence),
        (nn.FractionalMaxPool2d(2, output_ratio=0.7), pixels),
        (nn.FractionalMaxPool3d(2, output_ratio=0.7), volume),
        (nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), sequence),
        (nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True), sequence),
        (nn.GRU(8, 8, 2, dropout=0.5, batch_first=True), sequence),
        (nn.RNN(8, 8, 2, dropout=0.5, batch_first=True), sequence),
        (nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True), sequence),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True), 2), sequence),
        (StochasticDepth(0.5, "batch"), pixels),
        (StochasticDepth(0.5, "row"), pixels),
        (DropBlock2d(0.5, 3), pixels),
        (DropBlock3d(0.5, 3), volume),
        (timm.layers.DropPath(0.5), sequence),
        (timm.layers.DropBlock2d(0.5, 3), pixels),
        (timm.layers.PatchDropout(0.5), sequence),
        (timm.layers.Attention(8, 2, attn_drop=0.5), sequence),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_random(layer, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    module = Last(layer).eval()
    state, before = copy.deepcopy(module.state_dict()), modes(module)
    draws = [module(x) for _ in range(2)]
    assert torch.equal(*draws) == ("FractionalMaxPool" not in type(layer).__name__)  # which draws in eval mode too
    with torch.no_grad():  # where a transformer has its fast path
        averaged = Averaged(module, RandomMasks(16))
        first, *others = averaged.each_pass(x)
    assert not any(torch.equal(first, other) for other in others[:4]) or getattr(layer, "mode", "") == "batch"
    assert len({round(each.sum().item(), 6) for each in (first, *others)}) > 1
    assert all("norm" not in seen and "" not in seen for seen in module.seen)
    assert modes(module) == before
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.0),
        nn.AlphaDropout(0.0),
        nn.RReLU(0.2, 0.2),
        nn.FractionalMaxPool2d(2, output_ratio=0.7, _random_samples=torch.rand(3, 3, 2)),
        nn.MultiheadAttention(8, 2),
        nn.LSTM(8, 8, 2),
        nn.TransformerEncoderLayer(8, 2, 16, 0.0),
        StochasticDepth(0.0, "row"),
        DropBlock2d(0.0, 3),
        timm.layers.DropPath(0.0),
        timm.layers.Attention(8, 2),
        Functional(),
        nn.BatchNorm1d(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_is_not_random(layer):
    with pytest.raises(ValueError, match=f"`target` must have a layer that draws .*made of: .*{type(layer).__name__}"):
        random_layers(nn.Sequential(nn.Linear(2, 2), layer))


def test_a_recurrent_network_of_one_layer_has_nothing_to_drop():
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        layer = nn.LSTM(8, 8, 1, dropout=0.5)
    with pytest.raises(ValueError, match="made of: LSTM"):
        random_layers(layer)


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (lambda: torchvision.models.convnext_tiny(num_classes=2), {"StochasticDepth"}),
        (lambda: torchvision.models.efficientnet_b0(num_classes=2), {"StochasticDepth", "Dropout"}),
        (lambda: torchvision.models.densenet121(num_classes=2, drop_rate=0.2), {"_DenseLayer"}),
        (
            lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], attention_dropout=0.3),
            {"StochasticDepth", "ShiftedWindowAttention"},
        ),
        (lambda: torchvision.models.googlenet(num_classes=2, init_weights=False), {"Dropout"}),
        (lambda: timm.create_model("resnet10t", num_classes=2, drop_path_rate=0.3, zero_init_last=False), {"DropPath"}),
        (lambda: timm.create_model("resnet10t", num_classes=2, drop_rate=0.3), {"ResNet"}),
        (
            lambda: timm.create_model("test_efficientnet", num_classes=2, drop_rate=0.3, drop_path_rate=0.3),
            {"EfficientNet", "DropPath"},
        ),
        (
            lambda: timm.create_model("test_vit", num_classes=2, attn_drop_rate=0.3, patch_drop_rate=0.3, img_size=64),
            {"Dropout", "Attention", "PatchDropout", "VisionTransformer"},
        ),
    ],
    ids=[
        "convnext",
        "efficientnet",
        "densenet",
        "swin",
        "googlenet",
        "resnet path",
        "resnet",
        "timm efficientnet",
        "vit",
    ],
)
def test_models_of_torchvision_and_timm(build, kinds):
    torch.manual_seed(0)
    module = build()
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = 1.0
    module.train()(images(64, 8))  # statistics by which the outputs don't fade away
    module.eval()
    state, before = {name: value.clone() for name, value in module.state_dict().items()}, modes(module)
    assert {type(each).__name__ for each in random_layers(module).values()} == kinds
    with torch.no_grad():
        assert passes_differ(module, images(64, 2))
        assert torch.equal(module(images(64, 2)), module(images(64, 2)))
    assert modes(module) == before
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("average", ["probabilities", "logits", "votes"])
@pytest.mark.parametrize("training", [False, True])
def test_the_mean_is_that_of_a_loop_with_the_same_seed(average, training):
    module, x = net().train(training), images()
    state = copy.deepcopy(module.state_dict())
    by_hand = copy.deepcopy(module).eval()
    by_hand[3].train()
    by_hand[5].train()
    torch.manual_seed(1)
    outputs = torch.stack([by_hand(x) for _ in range(7)])
    torch.manual_seed(1)
    found = Averaged(module, RandomMasks(7), average=average)(x).exp()
    expected = {
        "probabilities": outputs.softmax(2).mean(0),
        "logits": outputs.mean(0).softmax(1),
        "votes": F.one_hot(outputs.argmax(2), 5).float().mean(0),
    }[average]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(each.training is training for each in module.modules())


def test_the_masks_are_those_of_the_rate():
    """Dropout keeps the expected value: what it lets through is doubled, and half of it is."""
    module = nn.Sequential(nn.Dropout(0.5), nn.LogSoftmax(1)).eval()
    torch.manual_seed(0)
    kept = []
    layer = module[0]
    layer.register_forward_hook(lambda _, args, out: kept.append(out / args[0]))
    Averaged(module, RandomMasks(2000))(torch.ones(4, 3))
    kept = torch.stack(kept)
    assert set(kept.unique().tolist()) == {0, 2}
    torch.testing.assert_close(kept.mean(0), torch.ones(4, 3), rtol=0, atol=5 / 2000**0.5)


@pytest.mark.parametrize("views_first", [False, True])
@pytest.mark.parametrize("max_batch", [None, 2, 100])
def test_masks_and_views_multiply(views_first, max_batch):
    x, seen = images(), []
    module = net()
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    sources = [RandomMasks(5), Views("flip")]
    averaged = Averaged(module, sources[::-1] if views_first else sources, max_batch=max_batch)
    assert averaged.names[:2] == ["mask 1 x identity", "mask 1 x hflip"]
    torch.manual_seed(2)
    found = averaged(x)
    assert sum(map(len, seen)) == 5 * 2 * len(x)
    assert len(averaged.names) == 10
    if max_batch is None:
        torch.manual_seed(2)
        by_hand = copy.deepcopy(module).eval()
        by_hand[3].train()
        by_hand[5].train()
        outputs = torch.stack([by_hand(view) for _ in range(5) for view in (x, x.flip(3))])
        torch.testing.assert_close(found.exp(), outputs.softmax(2).mean(0), rtol=0, atol=1e-6)


class Pair:
    """Two modules in the place of the one that is called."""

    kind, names, weights = "members", ("first", "second"), (0.25, 0.75)

    def __init__(self, *modules):
        self.modules = modules

    def around(self, index, call):
        return lambda _, arguments: call(self.modules[index], arguments)


@pytest.mark.parametrize("masks_first", [False, True])
def test_members_of_an_ensemble_draw_masks_of_their_own(masks_first):
    first, second, x = net(), nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Dropout(0.5)).eval(), images()
    sources = [RandomMasks(3), Pair(first, second)]
    torch.manual_seed(4)
    found = Averaged(nn.Identity(), sources if masks_first else sources[::-1])(x)
    assert not any(each.training for module in (first, second) for each in module.modules())
    for layer in (first[3], first[5], second[2]):
        layer.train()
    torch.manual_seed(4)
    first, second = (torch.stack([module(x).softmax(1) for _ in range(3)]).mean(0) for module in (first, second))
    torch.testing.assert_close(found.exp(), 0.25 * first + 0.75 * second, rtol=0, atol=1e-6)


def test_layers_of_the_users():
    module = nn.Sequential(nn.Linear(4, 8), Functional(), nn.Sequential(Functional(), nn.Linear(8, 2))).eval()
    x = torch.rand(3, 4)
    seen = []
    for each in module.modules():
        each.register_forward_pre_hook(lambda layer, _: seen.append(layer) if layer.training else None)
    assert passes_differ(module, x, "1")
    assert set(seen) == {module[1]}
    seen.clear()
    assert passes_differ(module, x, ["1", "2.?"])
    assert set(seen) == {module[1], module[2][0], module[2][1]}
    seen.clear()
    assert passes_differ(module, x, "*")  # a wildcard takes no BatchNorm along
    assert set(seen) == {each for each in module.modules() if not isinstance(each, nn.BatchNorm1d)}
    assert list(random_layers(module[1], "")) == [""]
    assert passes_differ(nn.Sequential(nn.Linear(4, 8), nn.Dropout(), Functional()).eval(), x, "2")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("hed", r"match names in Head, got 'hed', which matches none\. Nearest names: head, "),
        (
            ["head", "quux"],
            r"match names in Head, got 'quux', which matches none\. Nearest names: body, body\.norm, head",
        ),
        ("*norm", r"match others than layers with running statistics, got '\*norm', which matches body.norm alone"),
    ],
)
def test_patterns_that_match_nothing(layers, message):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = Functional(), nn.Linear(8, 2)

    with pytest.raises(ValueError, match=f"`layers` must {message}"):
        random_layers(Head(), layers)


@pytest.mark.parametrize("passes", [0, -3, 2.5, "20"])
def test_passes_that_are_none(passes):
    with pytest.raises((TypeError, ValueError), match=f"`passes` must be (an integer|at least 1), got {passes!r}"):
        RandomMasks(passes)


@pytest.mark.parametrize("layers", [3, [3], {"head": 1}, ("head",)])
def test_layers_of_a_wrong_type(layers):
    with pytest.raises(TypeError, match="`layers` must be a pattern over names of layers or a list of them, got"):
        RandomMasks(2, layers=layers)


def test_shared_layers_are_found_once():
    shared = nn.Dropout(0.5)
    module = nn.ModuleDict({"a": shared, "b": nn.Linear(2, 2), "c": shared})
    assert list(random_layers(module)) == ["a"]
    assert list(random_layers(module, ["c", "b"])) == ["a", "b"]


def test_modes_come_back_when_a_pass_raises():
    class Raising(nn.Module):
        def forward(self, x):
            raise ArithmeticError

    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), Raising())
    module[0].eval()
    before, x = modes(module), torch.rand(2, 4)
    state = torch.get_rng_state()
    for seed in (3, None):
        with pytest.raises(ArithmeticError):
            Averaged(module, RandomMasks(3, seed=seed))(x)
        assert modes(module) == before
        assert torch.equal(torch.get_rng_state(), state) == (seed is not None)


def test_modules_that_change_between_calls_are_looked_at_again():
    module = net()
    masks = RandomMasks(2)
    averaged = Averaged(module, masks)
    averaged(images())
    assert masks.found == {"3": "Dropout2d", "5": "Dropout"}
    module[3].p = 0.0
    averaged(images())
    assert masks.found == {"5": "Dropout"}
    module[5] = nn.Identity()
    with pytest.raises(ValueError, match="rate above 0"):
        averaged(images())


def test_random_numbers_of_their_own():
    x, module = images(), net()
    torch.manual_seed(5)
    expected = [Averaged(module, RandomMasks(4))(x) for _ in range(2)]  # the second one draws on
    torch.manual_seed(6)
    before, numbers = torch.get_rng_state(), random.getstate()
    averaged = Averaged(module, RandomMasks(4, seed=5))
    found = []
    for _ in range(2):
        found.append(averaged(x))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.initial_seed() == 6
        before = torch.manual_seed(6).get_state()
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(*found)
    assert random.getstate() == numbers


def test_copies_and_pickles():
    averaged, x = Averaged(net(), RandomMasks(3, layers="0", seed=1)), images()
    with torch.no_grad():
        averaged(x)
    for other in (copy.deepcopy(averaged), pickle.loads(pickle.dumps(averaged))):
        assert torch.equal(copy.deepcopy(averaged)(x), other(x))
        assert not other.module[5].training


@pytest.mark.parametrize("wrapped", [False, True])
def test_compiled_modules_see_the_masks(wrapped):
    module, x = net(), images()
    module[1] = nn.Identity().eval()
    if wrapped:
        compiled = nn.Sequential(torch.compile(module[:4], backend="eager"), *module[4:]).eval()
        assert list(random_layers(compiled)) == ["0.3", "2"]
        assert list(random_layers(torch.compile(module), "6")) == ["3", "5", "6"]
    else:
        compiled = module
        compiled.compile(backend="aot_eager")
    with torch.no_grad():
        plain = compiled(x)  # compiled in eval mode first
        torch.manual_seed(1)
        found = Averaged(compiled, RandomMasks(4)).each_pass(x)
        by_hand = net()
        by_hand[1] = nn.Identity()
        by_hand[3].train()
        by_hand[5].train()
        torch.manual_seed(1)
        expected = torch.stack([by_hand(x) for _ in range(4)]).log_softmax(2)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert torch.equal(compiled(x), plain)
    assert not any(each.training for each in compiled.modules())
    torch.compiler.reset()


def test_bfloat16():
    x = images().bfloat16()
    module = net().bfloat16()
    torch.manual_seed(1)
    found = Averaged(module, RandomMasks(6))(x)
    assert found.dtype == torch.float32
    torch.manual_seed(1)
    passes = Averaged(module, RandomMasks(6)).each_pass(x)
    torch.testing.assert_close(found.exp(), passes.exp().mean(0))
