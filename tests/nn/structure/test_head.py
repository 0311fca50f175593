import copy

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_trainingkit import ImageClassifier, SmallResNet, replace_head
from lightning_trainingkit.nn.structure.head import find_head, find_heads


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_classes = 7
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = self.again = nn.Linear(4, 7, bias=False)

    def forward(self, x):
        return self.classify(self.net(x))


MODELS = {
    "fc": lambda: torchvision.models.resnet18(),
    "classifier.6": lambda: torchvision.models.alexnet(),
    "classifier.1": lambda: torchvision.models.squeezenet1_1(),
    "heads.head": lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32),
    "features.7": lambda: nn.Sequential(),
    "head": lambda: timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32),
    "head.fc": lambda: timm.create_model("convnext_atto"),
    "classifier": lambda: timm.create_model("mobilenetv3_small_050"),
    "classify": Own,
    "model.head": lambda: ImageClassifier(SmallResNet(10, in_channels=3), 10),
}
del MODELS["features.7"]


@pytest.mark.parametrize("name", MODELS)
def test_the_head_has_other_outputs_and_the_rest_is_the_same_bit_for_bit(name):
    model = MODELS[name]().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert replace_head(model, 3) == name == find_head(model)
    x = torch.rand(2, 3, 32, 32) if "64" not in name else None
    x = torch.rand(2, 3, 64, 64) if name in ("classifier.6", "classifier.1") else x
    assert model(x).shape == (2, 3)
    inside = (f"{name}.", "again.")
    after = model.state_dict()
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert (value.shape[0] == 3) if key.startswith(inside) else torch.equal(value, before[key])
    assert not any(each.training for each in model.modules())
    if name in ("classify", "head", "head.fc", "classifier", "heads.head"):
        assert model.num_classes == 3
    if name == "classify":
        assert model.again is model.classify
        assert model.classify.bias is None


def test_dtype_device_and_geometry_are_kept_and_it_trains():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 10, (1, 3), stride=2, padding=(0, 1), dilation=1))
    model = model.double().requires_grad_(False)
    x = torch.rand(2, 3, 8, 8, dtype=torch.double)
    before = model(x).shape
    assert replace_head(model, 6) == "1"
    assert model(x).shape == (before[0], 6, *before[2:])
    assert model(x).dtype == torch.double
    assert all(p.requires_grad for p in model[1].parameters())
    assert not model[0].weight.requires_grad


class Headless(nn.Module):
    """The last layer is one of a residual block."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.two(self.one(x).relu())


class Beside(nn.Module):
    """Returns two outputs, one of which is an auxiliary one that runs in training alone, or both always."""

    def __init__(self, both=False):
        super().__init__()
        self.both = both
        self.body, self.aux, self.last = nn.Linear(4, 4), nn.Linear(4, 10), nn.Linear(4, 10)

    def forward(self, x):
        x = self.body(x)
        last = self.last(x).log_softmax(1) * 2
        return (last, self.aux(x)) if self.training or self.both else last


class Followed(nn.Module):
    """Something of the model's own comes after the last layer: a number, or one for each class."""

    def __init__(self, classes, normalised=False):
        super().__init__()
        self.body, self.last, self.normalised = nn.Linear(4, 4), nn.Linear(4, 3), normalised
        self.scale = nn.Parameter(torch.ones(classes))

    def forward(self, x):
        x = self.last(self.body(x))
        return nn.functional.linear(nn.functional.normalize(x), self.scale) if self.normalised else x * self.scale


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: Followed((3,)), "got `last`, .* meets `scale`"),
        (lambda: Followed((2, 3), normalised=True), "got `last`, .* meets `scale`"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1), "got head, head_dist"),
        (lambda: timm.create_model("resnet18", num_classes=0), "got `layer4.1.conv2`, .* meets a norm layer"),
        (lambda: Beside(both=True), "must have one last layer, got last, aux"),
        (lambda: timm.create_model("crossvit_tiny_240"), "must have one last layer, got head.0, head.1"),
        (Headless, "got `two`, .* meets the output of x"),
    ],
)
def test_models_without_a_last_layer_of_their_own_and_with_two(model, said):
    model = model()
    before = str(model)
    with pytest.raises(ValueError, match=said):
        replace_head(model, 3)
    assert str(model) == before
    assert replace_head(Beside(), 3) == "last"
    assert replace_head(followed := Followed(()), np.int64(5)) == "last"
    assert followed(torch.rand(2, 4)).shape == (2, 5)


@pytest.mark.parametrize(
    ("model", "classes", "error", "said"),
    [
        (nn.Linear(3, 2), 4, ValueError, "got the layer itself"),
        (nn.Sequential(nn.ReLU()), 4, ValueError, "must have a linear or convolutional layer"),
        (nn.Sequential(nn.LazyLinear(2)), 4, ValueError, "Call the model once"),
        (nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), 4, TypeError, "a linear layer or a plain convolution"),
        (
            nn.Sequential(nn.Linear(4, 4), Cosine(4, 2)),
            4,
            TypeError,
            "a linear layer or a plain convolution, got Cosine",
        ),
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 1)), 4, TypeError, "a linear layer or a plain convolution"),
        (Own(), 0, ValueError, "must be at least 1, got 0"),
        (Own(), 2.0, TypeError, "must be an integer, got 2.0"),
        (Own(), True, TypeError, "must be an integer"),
    ],
)
def test_errors_leave_the_model_alone(model, classes, error, said):
    before = copy.deepcopy(model)
    with pytest.raises(error, match=said):
        replace_head(model, classes)
    assert str(model) == str(before)


def test_the_users_hooks_are_not_called():
    seen = []
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
    for each in net.modules():
        each.register_forward_hook(lambda *_: seen.append("after"))
        each.register_forward_pre_hook(lambda *_: seen.append("before"))
    assert find_heads(net) == ["1"]
    replace_head(net, 3)
    assert not seen


class Hooked(nn.Module):
    """The features leave through a hook, into a list, a dict or an attribute."""

    def __init__(self, kept):
        super().__init__()
        self.projector = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.kept = copy.copy(kept)
        self.body.register_forward_hook(self.keep)

    def keep(self, module, args, output):
        if isinstance(self.kept, list):
            self.kept.append(output)
        elif isinstance(self.kept, dict):
            self.kept["x"] = output
        else:
            self.kept = output

    def forward(self, x):
        self.body(x)
        features = self.kept.pop() if isinstance(self.kept, list) else self.kept
        return self.projector(features["x"] if isinstance(features, dict) else features.relu())


@pytest.mark.parametrize("kept", [[], {}, None])
def test_a_head_behind_a_forward_hook_is_refused_and_hooks_that_look_are_not(kept):
    with pytest.raises(ValueError, match=r"may leave through a forward hook \(body\)"):
        find_head(Hooked(kept))
    with pytest.raises(ValueError, match=r"may leave through a forward hook \(net.body\)"):
        find_head(nn.ModuleDict({"net": Hooked(kept)}))

    class Looping(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
            self.body.register_forward_hook(lambda *_: None)

        def forward(self, x):
            return self.head(self.body(x)) if x.sum() > 0 else x

    assert find_head(Looping()) == "head"


def test_features_that_a_hook_alone_returns_have_no_head():
    class Only(Hooked):
        def forward(self, x):
            self.body(x)
            return self.kept["x"]

    model = Only({})
    model(torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"may leave through a forward hook"):
        find_head(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning", "ignore:.*torch.jit.script:DeprecationWarning")
def test_torchscript_is_refused_whole_and_left_alone_as_a_part():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 7)))
    with pytest.raises(TypeError, match="`model` must be written in Python, got a TorchScript module"):
        replace_head(scripted, 5)
    net = nn.Sequential(scripted, nn.ReLU(), nn.Linear(7, 3))
    assert replace_head(net, 5) == "2"
    assert net(torch.rand(2, 4)).shape == (2, 5)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda part: torch.jit.trace(part, torch.rand(2, 4))])
def test_a_head_in_torchscript_is_found_and_refused(make):
    net = nn.Sequential(nn.Linear(4, 4), make(nn.Sequential(nn.ReLU(), nn.Linear(4, 2))))
    assert find_heads(net) == ["1.1"]
    with pytest.raises(TypeError, match=r"`model` must end in a linear layer .* as `1\.1`"):
        replace_head(net, 5)
    assert net(torch.rand(2, 4)).shape == (2, 2)
