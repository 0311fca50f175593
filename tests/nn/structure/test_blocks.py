import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_trainingkit import ImageClassifier
from lightning_trainingkit.nn.structure.blocks import find_blocks


def named(model):
    return [block.name for block in find_blocks(model)]


@pytest.mark.parametrize(
    ("make", "count", "last"),
    [
        (torchvision.models.resnet50, 18, ["layer4.1", "layer4.2", "fc"]),
        (torchvision.models.vgg11_bn, 11, ["classifier.0", "classifier.3", "classifier.6"]),
        (torchvision.models.efficientnet_b0, 19, ["features.7.0", "features.8", "classifier.1"]),
        (torchvision.models.swin_t, 17, ["features.7.0", "features.7.1", "head"]),
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=3), 5, ["blocks.1", "blocks.2", "head"]),
        (lambda: timm.create_model("convnext_atto"), 6, ["stages.2", "stages.3", "head.fc"]),
        (lambda: ImageClassifier("small_resnet", 10), 5, ["model.blocks.1", "model.blocks.2", "model.head"]),
    ],
)
def test_blocks_of_known_models(make, count, last):
    model = make()
    blocks = find_blocks(model)
    assert len(blocks) == count
    assert [block.name for block in blocks][-3:] == last
    held = [parameter for block in blocks for parameter in block.parameters]
    assert len(held) == len(set(held)) == len(list(model.parameters()))


class Own(nn.Module):
    """A head defined first, a class token, a shared weight, a norm at the end."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 4)
        self.token = nn.Parameter(torch.zeros(4))
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.out.weight = self.first.weight

    def forward(self, x):
        return self.out(self.norm(self.second(self.first(x) + self.token)))


def test_norms_go_with_the_block_before_and_what_is_shared_with_the_last():
    model = Own()
    first, second, out = find_blocks(model)
    assert (first.name, second.name, out.name) == ("first", "second", "out")
    assert first.parameters == (model.token, model.first.bias)
    assert second.parameters == (*model.second.parameters(), *model.norm.parameters())
    assert out.parameters == (model.out.weight, model.out.bias)


def test_plain_layers_and_parts_to_skip():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    assert named(net) == ["0", "4"]
    net.add_module("other", nn.Sequential(nn.Embedding(2, 2)))
    assert [block.name for block in find_blocks(net, skip=(nn.Embedding,))] == ["0", "4"]
    assert named(nn.Sequential(nn.Linear(2, 2))) == ["0"]


class Cosine(nn.Module):
    """A classifier that is neither linear nor convolutional."""

    def __init__(self, features, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(classes, features))

    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Reordered(nn.Module):
    """Defined in another order than called; an auxiliary classifier, and a loss with parameters."""

    def __init__(self):
        super().__init__()
        self.second, self.first, self.aux, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), Cosine(4, 2)
        self.loss = nn.Linear(2, 2)
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.second(self.first(x).relu())
        return (self.out(x), self.aux(x)) if self.training else self.out(x)


def test_blocks_follow_the_forward_and_the_head_may_be_of_any_kind():
    net = Reordered()
    first, second, out = find_blocks(net)
    assert [first.name, second.name, out.name] == ["first", "second", "out"]
    assert first.parameters == (*net.first.parameters(), *net.aux.parameters())  # defined after it, and not called
    assert set(out.parameters) == {net.out.weight, net.temperature, *net.loss.parameters()}
    assert net.training


def test_googlenet_and_two_classifiers():
    with torch.device("meta"):
        net = torchvision.models.googlenet(init_weights=False)
        assert named(net)[-3:] == ["inception5a", "inception5b", "fc"]
        two = timm.create_model("deit_tiny_distilled_patch16_224", depth=2)
        assert named(two)[-2:] == ["blocks.1", "head and head_dist"]
        assert named(timm.create_model("crossvit_tiny_240"))[-1] == "head.0 and head.1"


def test_a_model_without_layers():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.PReLU())
    (block,) = find_blocks(net)
    assert block.parameters == tuple(net.parameters())
