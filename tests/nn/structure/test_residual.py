import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_trainingkit.nn.structure.residual import residual_branches


def without_weights(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize(
    ("make", "count", "end"),
    [
        (torchvision.models.resnet18, 8, "layer1.0.bn2"),
        (torchvision.models.wide_resnet50_2, 16, "layer1.0.bn3"),
        (torchvision.models.mobilenet_v2, 10, "features.3.conv"),
        (torchvision.models.mobilenet_v3_small, 6, "features.3.block"),
        (torchvision.models.efficientnet_b0, 9, "features.2.1.stochastic_depth"),
        (torchvision.models.convnext_tiny, 18, "features.1.0.stochastic_depth"),
        (torchvision.models.vit_b_16, 24, "encoder.layers.encoder_layer_0.dropout"),
        (torchvision.models.swin_t, 24, "features.1.0.attn"),  # its blocks call one stochastic depth twice
        (lambda: timm.create_model("regnetx_002"), 13, "s1.b1.drop_path"),
        (lambda: timm.create_model("res2net50_14w_8s"), 16, "layer1.0.bn3"),  # sums of parts of a split are none
        (lambda: timm.create_model("vit_tiny_patch16_224"), 24, "blocks.0.drop_path1"),
        (lambda: timm.create_model("caformer_s18"), 36, "stages.0.blocks.0.layer_scale1"),  # some skips have a scale
        (torchvision.models.densenet121, 0, ""),
        (torchvision.models.vgg11, 0, ""),
        (lambda: timm.create_model("repvgg_a0"), 0, ""),  # sums of parallel layers are none
    ],
)
def test_branches_of_known_models(make, count, end):
    branches = residual_branches(without_weights(make))
    assert len(branches) == count
    assert not any(branch.fault for branch in branches)
    assert not branches or branches[0].end == end


class Block(nn.Module):
    """Sums that are no residual branches, and one that is."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.one, self.two, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.position = nn.Parameter(torch.zeros(4))
        self.relu = nn.ReLU()

    def forward(self, x):
        branch = self.two(self.relu(self.one(x)))
        match self.kind:
            case "identity":
                return x + branch
            case "projection":
                return torch.add(branch, self.other(x))
            case "in place":
                branch += x
                return branch
            case "scaled":
                return x + branch * self.position
            case "position":
                return self.two(self.relu(self.one(x + self.position)))
            case "linear":
                return x + self.one(x)
            case "two layers beside two":
                return branch + self.other(self.relu(self.other(x)))
            case "gate":
                return x + branch * self.other(x)
            case "used outside":
                return x + branch, branch
            case "half used outside":
                half = self.relu(self.one(x))
                return x + self.two(half), half


@pytest.mark.parametrize("kind", ["identity", "projection", "in place", "scaled"])
def test_sums_that_are_branches(kind):
    (branch,) = residual_branches(nn.Sequential(Block(kind)))
    assert (branch.block, branch.end, branch.fault) == ("0", "0.two", "")
    assert branch.modules == ("0.one", "0.relu", "0.two")
    assert set(branch.parameters) == {"0.one.weight", "0.one.bias", "0.two.weight", "0.two.bias"} | (
        {"0.position"} if kind == "scaled" else set()
    )


@pytest.mark.parametrize("kind", ["position", "linear", "two layers beside two"])
def test_sums_that_are_none(kind):
    assert residual_branches(nn.Sequential(Block(kind))) == []


def test_branches_that_no_module_stands_for():
    for kind, fault in {"gate": "it ends in the function mul", "used outside": "is used outside of it"}.items():
        (branch,) = residual_branches(Block(kind))
        assert fault in branch.fault


def test_a_branch_whose_inside_is_used_can_be_dropped_but_not_skipped():
    (branch,) = residual_branches(Block("half used outside"))
    assert (branch.end, branch.fault) == ("two", "")
    assert "is used outside of it too" in branch.inseparable


def test_an_end_of_several_branches_can_be_dropped_but_not_skipped():
    class Shared(nn.Module):
        def __init__(self, once_outside):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.relu, self.drop = nn.ReLU(), nn.Identity()
            self.once_outside = once_outside

        def forward(self, x):
            x = x + self.drop(self.relu(self.one(x)) * self.relu(x))
            x = x + self.drop(self.relu(self.two(x)) * self.relu(x))
            return self.drop(x) if self.once_outside else x

    branches = residual_branches(Shared(once_outside=False))
    assert [(branch.end, branch.fault) for branch in branches] == [("drop", "")] * 2
    assert all("it ends in the function mul" in branch.inseparable for branch in branches)
    branches = residual_branches(Shared(once_outside=True))
    assert [branch.end for branch in branches] == [""] * 2
    assert all("it ends in the function mul" in branch.fault for branch in branches)


def test_a_branch_with_more_channels_than_its_input():
    (branch, *_) = residual_branches(without_weights(lambda: timm.create_model("rexnet_100")))
    assert (branch.end, branch.fault, branch.inseparable) == ("features.2.conv_pwl", "", "")


def test_a_part_that_cannot_be_traced_is_named_and_searched():
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Block("identity")

        def forward(self, x):
            return self.inner(x) if x.sum() > 0 else x

    found = residual_branches(nn.Sequential(Block("identity"), Untraceable()))
    assert [(branch.block, branch.end) for branch in found] == [("0", "0.two"), ("1", ""), ("1.inner", "1.inner.two")]
    assert "cannot be traced" in found[1].fault


def test_an_outer_branch_around_branches_does_not_count():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(Block("identity"), Block("identity"))

        def forward(self, x):
            return x + self.body(x)

    assert [branch.block for branch in residual_branches(Whole())] == ["body.0", "body.1"]
