import random

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.nn.transfer.freezing import ParameterFreezer
from lightning_trainingkit.nn.transfer.frozen_front import CannotCutError, find_front


def shut(model, *open_parts):
    freezer = ParameterFreezer(model)
    freezer.train_only({p for name in open_parts for p in model.get_submodule(name).parameters()})
    freezer.hold_eval_mode()
    return model


def images(size=64, count=4):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


MODELS = {
    "resnet18": (lambda: torchvision.models.resnet18(), (), (512,)),
    "resnet18, layer4 too": (lambda: torchvision.models.resnet18(), ("layer4",), (256, 4, 4)),
    "alexnet": (lambda: torchvision.models.alexnet(), (), (4096,)),
    "vgg11": (lambda: torchvision.models.vgg11(), (), (4096,)),  # its last dropout stays random
    "densenet121": (lambda: torchvision.models.densenet121(), (), (1024,)),
    "efficientnet_b0": (lambda: torchvision.models.efficientnet_b0(), (), (1280,)),
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(), (), (512, 3, 3)),
    "swin_t": (lambda: torchvision.models.swin_t(), (), (768,)),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64), (), (192,)),
    "timm resnet18": (lambda: timm.create_model("resnet18"), (), (512,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_both_parts_together_are_the_forward(name):
    torch.manual_seed(0)
    make, others, shape = MODELS[name]
    model = make()
    shut(model, find_head(model), *others)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = images()
    for training in (True, False):
        if not training:
            model.eval()
        front = find_front(model, x[:2])
        features = front.front(x)
        assert not any(each.requires_grad for each in features)
        if training:
            assert [tuple(each.shape) for each in features] == [(4, *shape)]
        results = []
        for call in (lambda front=front, features=features: front.rest(x, *features), lambda: model(x)):
            torch.manual_seed(1)
            results.append(call())
            model.load_state_dict(before)
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
        assert results[0].requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_one_image_says_nothing_of_another():
    front = find_front(shut(torchvision.models.resnet18(), "fc"), images())
    x = images(count=6)
    torch.testing.assert_close(front.front(x)[0][:2], front.front(x[:2])[0], rtol=1e-5, atol=1e-6)


class Own(nn.Module):
    def __init__(self, between=lambda self, y: y, tail=lambda self, y, x: y):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.between, self.tail, self.alpha = between, tail, 1.0

    def forward(self, x):
        y = self.between(self, self.body(x.flatten(1)).relu())
        return self.tail(self, self.head(y), x)


def test_what_needs_sizes_the_input_or_several_values():
    for model in (
        Own(lambda self, y: y.view(y.size(0), -1)),
        Own(tail=lambda self, y, x: y + x.mean((1, 2, 3))[:, None]),
        Own(lambda self, y: F.dropout(y, 0.5, self.training).view(y.shape[0], -1)),
        Own(lambda self, y: y + F.dropout(y * 2, 0.5, self.training)),
        Own(lambda self, y: torch.relu_(y) * self.alpha),
        Own(lambda self, y: y * torch.arange(6)),
    ):
        shut(model, "head")
        x = torch.rand(5, 3, 2, 2)
        front = find_front(model, x[:2])
        for _ in range(2):
            torch.manual_seed(3)
            one = front.rest(x, *(each.clone() for each in front.front(x.clone())))
            torch.manual_seed(3)
            torch.testing.assert_close(one, model(x.clone()))


def test_nothing_frozen_in_front_is_none_and_a_wholly_frozen_module_is_kept_whole():
    assert find_front(Own(), torch.rand(2, 3, 2, 2)) is None
    model = Own()
    model.head.requires_grad_(False)
    assert find_front(model, torch.rand(2, 3, 2, 2)) is None

    class Untraceable(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x[:, :2]

    module = Untraceable(3, 2).requires_grad_(False)
    front = find_front(module, torch.ones(2, 3))
    assert torch.equal(front.rest(None, *front.front(torch.ones(2, 3))), module(torch.ones(2, 3)))


def test_the_rounding_of_another_batch_size_is_allowed_for():
    class Rounds(nn.Linear):
        """Multiplies with fewer digits for one image than for two, as GPUs do."""

        def forward(self, x):
            return super().forward(x).float() * (1 + self.error * (len(x) == 1))

    def front(error):
        layer = Rounds(3, 4)
        layer.error = error
        model = nn.Sequential(layer.requires_grad_(False), nn.Linear(4, 2))
        return find_front(model, torch.rand(2, 3))

    assert front(1e-6)
    with pytest.raises(CannotCutError, match="depends on the others in its batch"):
        front(1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert front(1e-2)
        with pytest.raises(CannotCutError, match="depends on the others in its batch"):
            front(0.5)
        mixing = Own(lambda self, y: y + 0.01 * y.mean(0))  # less than bfloat16 may err between two sizes
        with pytest.raises(CannotCutError, match="depends on the others in its batch"):
            find_front(shut(mixing, "head"), torch.rand(2, 12))


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def test_a_gradient_that_a_trace_does_not_show_is_no_cut():
    def scale(self, y, x):
        with torch.no_grad():
            size = y.norm(dim=1, keepdim=True)
        return y / size

    for tail in (scale, lambda self, y, x: Reverse.apply(y), lambda self, y, x: Reverse.apply(y).softmax(1)):
        model = shut(Own(tail=tail), "head")
        with pytest.raises(CannotCutError, match="the gradient of the forward of Own is not that of its trace"):
            find_front(model, torch.rand(2, 12))
        with torch.no_grad():
            assert find_front(model, torch.rand(2, 12))
    for tail in (lambda self, y, x: y.softmax(1), lambda self, y, x: y * y.detach()):
        model = shut(Own(tail=tail), "head")
        assert find_front(model, torch.rand(2, 12))
        assert all(p.grad is None for p in model.parameters())


def test_a_cut_forward_that_makes_tensors_breaks_no_later_trace():
    model = shut(Own(lambda self, y: y + torch.arange(y.shape[1])), "head")
    assert find_front(model, torch.rand(2, 12))
    assert torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))
    assert find_front(shut(Own(), "head"), torch.rand(2, 12))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Own(lambda self, y: y if y.sum() > 0 else -y), "the forward of Own cannot be traced"),
        (Own(lambda self, y: y - y.mean(0)), "depends on the others in its batch"),
        (Own(lambda self, y: y * torch.rand(1)), "does something that a trace of it does not show"),
        (Own(lambda self, y: y * torch.rand_like(y)), None),
    ],
)
def test_forwards_that_cannot_be_cut(model, said):
    shut(model, "head")
    x = torch.rand(4, 3, 2, 2)
    if said is None:  # what is random begins the rest
        assert find_front(model, x).end == ("relu",)
        return
    with pytest.raises(CannotCutError, match=said):
        find_front(model, x)


class Counting(Own):
    def forward(self, x):
        self.count = getattr(self, "count", 0) + 1
        return super().forward(x)


class Flipping(Own):
    def forward(self, x):
        return super().forward(x.flip(3) if random.random() < 0.01 else x)


class Numpy(Own):
    def forward(self, x):
        return super().forward(x * np.sqrt(16))


def test_what_a_forward_does_beside():
    x = torch.rand(2, 3, 2, 2)
    with pytest.raises(CannotCutError, match="sets attributes of a module"):
        find_front(shut(Counting(), "head"), x)
    state = random.getstate()
    with pytest.raises(CannotCutError, match="draws from Python's or numpy's random numbers"):
        find_front(shut(Flipping(), "head"), x)
    assert random.getstate() == state
    assert find_front(shut(Numpy(), "head"), x) is not None


def test_dropout_at_the_very_front_is_the_reason():
    class Early(Own):
        def forward(self, x):
            return super().forward(F.dropout(x, 0.5, self.training))

    model = shut(Early(), "head")
    with pytest.raises(CannotCutError, match="`dropout` is random in training, and nothing frozen comes before it"):
        find_front(model, torch.rand(2, 3, 2, 2))
    assert find_front(model.eval(), torch.rand(2, 3, 2, 2)) is not None


def test_a_wholly_frozen_module_in_training_mode_is_not_kept():
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).requires_grad_(False)
    with pytest.raises(CannotCutError, match=r"`1` \(Dropout\) is in training mode"):
        find_front(module, torch.rand(2, 3))
    assert find_front(module.eval(), torch.rand(2, 3)) is not None


def test_changes_are_noticed():
    model = shut(Own(lambda self, y: y * self.alpha), "head")
    x = torch.rand(2, 3, 2, 2)
    front = find_front(model, x)
    assert front.in_place()
    assert not front.changed()
    version, content = front.version(), front.content()
    with torch.no_grad():
        model.head.weight.add_(1)
        assert front.version() == version
        model.body.weight.add_(1)
        assert front.version() > version
        assert front.content() != content
        model.body.weight.sub_(1)
    content, version = front.content(), front.version()
    model.norm.running_mean.add_(0.0)
    model.body.bias.data.mul_(2)
    assert front.version() == version
    assert front.content() != content
    held = model.body._parameters["weight"]
    model.body._parameters["weight"] = nn.Parameter(held.clone())
    assert not front.in_place()
    model.body._parameters["weight"] = held
    assert front.in_place()
    model.alpha = 2.0
    assert front.changed() == {model}
    again = find_front(model, x)
    assert not again.changed()
    assert again.code != front.code
    model.body.train()
    assert again.changed() == {model.body}
    model.body.eval()
    model.body.weight.requires_grad_(True)
    assert not again.in_place()
