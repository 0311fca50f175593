import random

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.nn.transfer.boundary import NoBoundaryError, enclosing_parts, find_boundary
from lightning_trainingkit.nn.transfer.freezing import ParameterFreezer


def freeze(model, *trainable_parts):
    freezer = ParameterFreezer(model)
    freezer.train_only({p for name in trainable_parts for p in model.get_submodule(name).parameters()})
    freezer.hold_eval_mode()
    return model


def boundary_of(model, x):
    """The boundary of a frozen model as it is called now."""
    return find_boundary(model, model.forward, x, {p for p in model.parameters() if p.requires_grad})[0]


def images(size=32, count=4):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


MODELS = {
    "resnet18": ("`fc`", (512,)),
    "densenet121": ("`classifier`", (1024,)),
    "convnext_tiny": ("`classifier.2`", (768,)),
    "vit_b_16": ("`heads.head`", (768,)),
    "swin_t": ("`head`", (768,)),
    "mobilenet_v3_small": ("`classifier`", (576,)),
    "efficientnet_b0": ("`classifier`", (1280,)),
    "vgg11": ("`classifier`", (512 * 7 * 7,)),
    "vgg11_bn": ("`classifier`", (512 * 7 * 7,)),
    "mnasnet0_5": ("`classifier`", (1280,)),
    "alexnet": ("`classifier.6`", (4096,)),
    "timm resnet18": ("`fc`", (512,)),
    "timm vit": ("`head`", (192,)),
}
OPTIONS = {"vit_b_16": {"image_size": 32}, "timm vit": {"depth": 2, "img_size": 32}}
KINDS = {"timm resnet18": "resnet18", "timm vit": "vit_tiny_patch16_224"}


@pytest.mark.parametrize("name", MODELS)
def test_the_head_of_known_models_gives_the_same_outputs_and_gradients_from_stored_features(name):
    torch.manual_seed(0)
    make = timm.create_model if name in KINDS else torchvision.models.get_model
    model = make(KINDS.get(name, name), num_classes=10, **OPTIONS.get(name, {}))
    head = find_head(model)
    freeze(model, head)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = images(64 if name == "alexnet" else 32)
    boundary = boundary_of(model, x[:2])
    place, shape = MODELS[name]
    assert boundary.place == place
    with torch.no_grad():
        features = boundary.features(x)
    assert features.shape == (4, *shape)
    results = []
    for call in (lambda: boundary.part(features.clone()), lambda: model(x)):
        torch.manual_seed(1)
        output = call()
        gradients = torch.autograd.grad(output.square().sum(), list(model.get_submodule(head).parameters()))
        results.append([output, *gradients])
    for cached, plain in zip(*results, strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_layers_after_the_head_leave_no_boundary():
    model = freeze(torchvision.models.squeezenet1_1(num_classes=5), "classifier.1")
    with pytest.raises(NoBoundaryError, match="the forward of SqueezeNet goes on after `classifier`"):
        boundary_of(model, images())


class Own(nn.Module):
    """A frozen body and a head, with something between them or after them."""

    def __init__(self, between=lambda self, y: y, tail=lambda self, y: y):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.between, self.tail = between, tail
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        return self.tail(self, self.head(self.between(self, self.body(x.flatten(1)).relu())))


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (lambda self, y: F.dropout(y, 0.5, self.training), "random numbers are drawn before `head`, as by dropout"),
        (lambda self, y: y * torch.rand(1), "random numbers are drawn before `head`"),
        (lambda self, y: y if random.random() < 2 else -y, "random numbers are drawn before `head`"),
        (lambda self, y: y - y.mean(0), "depends on more than one image, as on its batch"),
        (lambda self, y: y + self.head(y).sum(1, keepdim=True), "`head` is not called exactly once"),
        (lambda self, y: y + self.head.bias.sum(), "trainable parameters act before `head`"),
        (lambda self, y: y[None], "with one tensor, a row for each image"),
        (lambda self, y: setattr(self, "kept", y) or y, "the forward sets attributes or buffers outside of `head`"),
        (lambda self, y: self.count.add_(1) * 0 + y, "the forward sets attributes or buffers outside of `head`"),
        (lambda self, y: y.view(4, 6), r"the forward can't be run on 2 images \(shape"),
    ],
)
def test_a_frozen_part_that_does_more_than_compute_features_of_each_image(between, said):
    model = freeze(Own(between), "head")
    states = random.getstate(), torch.get_rng_state()
    before = dict(vars(model))
    with pytest.raises(NoBoundaryError, match=said):
        boundary_of(model, images(2, 2))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert vars(model) == before
    assert model.count == 0


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


@pytest.mark.parametrize(
    "tail",
    [
        lambda self, y: y * 1.0,
        lambda self, y: y.softmax(1),
        lambda self, y: {"logits": y},
        lambda self, y: Reverse.apply(y),
        lambda self, y: y.detach(),
        lambda self, y: y.mul_(2),
        lambda self, y: y.clamp_(-1e6, 1e6),  # which changes nothing on two images, but may on others
    ],
)
def test_a_forward_that_goes_on_after_the_head_has_no_boundary(tail):
    with pytest.raises(NoBoundaryError, match=r"goes on after `head`|`head` alone returns something different"):
        boundary_of(freeze(Own(tail=tail), "head"), images(2, 2))


def test_a_precision_that_the_forward_sets_itself_is_none_of_the_heads():
    class Low(Own):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    with pytest.raises(NoBoundaryError, match=r"`head` alone returns something different|can't be run"):
        boundary_of(freeze(Low(), "head"), images(2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert boundary_of(freeze(Low(), "head"), images(2, 2)).place == "`head`"


def test_another_batch_changes_no_features_by_more_than_rounding():
    with torch.autocast("cpu", torch.bfloat16):  # which may err by more between two batch sizes
        model = freeze(Own(lambda self, y: y + 0.01 * y.mean(0)), "head")
        with pytest.raises(NoBoundaryError, match="depends on more than one image"):
            boundary_of(model, images(2, 2))


def test_a_head_with_batch_norm_and_dropout_is_tried_out_and_left_as_it_was():
    class Deep(Own):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))

    model = freeze(Deep(), "head")
    assert enclosing_parts(model, set(model.head.parameters())) == ["head"]
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert boundary_of(model, images(2)).place == "`head`"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.head._forward_pre_hooks
    assert not model.head._forward_hooks


def test_a_graph_that_waits_for_its_backward_pass_is_not_disturbed():
    model = Own()
    model.head = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
    loss = freeze(model, "head")(images(2)).sum()
    boundary_of(model, images(2))
    loss.backward()


def test_a_wholly_frozen_module_is_kept_as_a_whole_and_one_that_trains_is_not():
    model = Own().eval().requires_grad_(False)
    boundary = boundary_of(model, images(2, 2))
    assert boundary.place == "its end"
    assert torch.equal(boundary.part(boundary.features(images(2))), model(images(2)))
    with pytest.raises(NoBoundaryError, match="lie in several submodules, or it trains as a whole"):
        boundary_of(Own(), images(2))
    with pytest.raises(NoBoundaryError, match="random numbers are drawn before its end"):
        boundary_of(nn.Sequential(nn.Linear(3, 3), nn.Dropout()).requires_grad_(False), torch.rand(2, 3))
    assert enclosing_parts(nn.ReLU(), set()) == []


class Around(nn.Module):
    """Its head lies in a submodule that starts with a frozen layer."""

    def __init__(self):
        super().__init__()
        self.body, self.inner = nn.Linear(12, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))

    def forward(self, x):
        return self.inner(self.body(x.flatten(1)))


@pytest.mark.parametrize("register", [nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook])
def test_the_boundary_lies_where_all_hooks_see_every_image(register):
    for part, place in (("", "`inner.1`"), ("inner.1", "`inner.1`"), ("inner", "`inner`")):
        model = freeze(Around(), "inner.1")
        register(model.get_submodule(part), lambda *_: None)
        assert boundary_of(model, images(2)).place == place
    model = freeze(Around(), "inner.1")
    model.body.register_forward_pre_hook(lambda *_: None)  # may go by
    assert boundary_of(model, images(2)).place == "`inner.1`"
    model.body.register_forward_hook(lambda *_: None)
    with pytest.raises(NoBoundaryError, match=r"`body` \(Linear\) has a hook, which would not see every image"):
        boundary_of(model, images(2))
