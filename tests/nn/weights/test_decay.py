import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from lightning_trainingkit.nn.weights.decay import decay_groups


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm((3, 4))  # weight with two dimensions
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)  # bias_k with three
        self.scale = nn.Parameter(torch.ones(()))
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embed.weight


def names(module, group):
    found = {id(p): name for name, p in module.named_parameters()}
    return {found[id(p)] for p in group["params"]}


def test_norms_biases_and_vectors_are_spared():
    module = Tied()
    decayed, spared = decay_groups(module, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert names(module, decayed) == {"embed.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    assert {"norm.weight", "norm.bias", "attention.bias_k", "attention.in_proj_bias", "scale", "out.bias"} <= names(
        module, spared
    )


@pytest.mark.parametrize("build", [Tied, resnet18])
def test_every_trainable_parameter_once(build):
    module = build()
    next(module.parameters()).requires_grad = False
    found = [id(p) for group in decay_groups(module, 0.1) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in module.parameters() if p.requires_grad)
    found = [id(p) for group in decay_groups(module, 0.1, include_frozen=True) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in module.parameters())


def test_a_step_shrinks_weights_alone():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    nn.init.ones_(module[0].bias)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    torch.optim.SGD(decay_groups(module, 0.5), lr=0.1).step()
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if name == "0.weight" else 1))


def test_an_empty_group_is_left_out():
    assert [group["weight_decay"] for group in decay_groups(nn.BatchNorm1d(3), 0.1)] == [0.0]


def test_negative_decay():
    with pytest.raises(ValueError, match="`weight_decay` must not be negative, got -1"):
        decay_groups(nn.Linear(1, 1), -1)
