"""Normalisation layers that do not do what they are for, and unusual ones that do."""

import pytest
import torch
from torch import nn

from tests.callbacks.diagnostics.checked_fit import Net, fit, kinds

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start")


def with_norm(norm):
    """The net with another layer in the place of its BatchNorm."""
    module = Net()
    module.body[1] = norm
    return module


def unused():
    module = Net()
    module.body[1] = nn.Identity()
    module.norm = nn.BatchNorm2d(4)
    return module


def one_value():
    module = Net()
    module.middle.insert(1, nn.LayerNorm(1))
    module.middle[0], module.head = nn.Linear(16, 1), nn.Linear(1, 2)
    return module


@pytest.mark.parametrize(
    ("module", "where", "words"),
    [
        (unused, "norm", "no training step that was looked at calls it"),
        (lambda: with_norm(nn.BatchNorm2d(4, momentum=0.0)), "body.1", "momentum 0"),
        (lambda: with_norm(nn.BatchNorm2d(4, momentum=1e-4)), "body.1", "momentum of 0.0001 for 24 batches"),
        (lambda: with_norm(nn.BatchNorm2d(4, track_running_stats=False)), "body.1", "keeps no running statistics"),
        (lambda: with_norm(nn.BatchNorm2d(4).eval()), "body.1", "initial statistics"),
        (lambda: with_norm(nn.BatchNorm2d(4, eps=10.0)), "body.1", "eps of 10"),
        (lambda: with_norm(nn.GroupNorm(2, 4, eps=10.0)), "body.1", "eps of 10"),
        (one_value, "middle.1", "each mean over 1 values"),
    ],
)
def test_found(module, where, words):
    (finding,) = [finding for finding in fit(module()).final if finding.kind != "parameters_not_trained"]
    assert (finding.kind, finding.where) == ("normalisation_off", where)
    assert words in finding.message


def test_an_unused_layer_is_one_finding_and_an_unused_part_is_another():
    module = unused()
    module.part = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    found = {finding.kind: finding.where for finding in fit(module).final}
    assert found == {"parameters_not_trained": "part", "normalisation_off": "norm"}


def test_batches_of_one_image_are_found():
    (finding,) = fit(Net(), epochs=1, batch_size=1).final
    assert (finding.kind, finding.where) == ("normalisation_off", "body.1")
    assert "batches of one image" in finding.message


def pretrained_and_still():
    norm = nn.BatchNorm2d(4, momentum=1e-4)
    norm.running_mean += 1
    norm.num_batches_tracked += 100_000
    return norm


class Functional(nn.LayerNorm):
    """Its parameters are used, and it is not called."""


class ByHand(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.middle(self.body(x))
        return self.head(nn.functional.layer_norm(x, (8,), self.norm.weight, self.norm.bias))


class TwoPasses(Net):
    """The second pass of each step leaves the statistics alone, as sharpness-aware minimization does."""

    def training_step(self, batch, batch_idx):
        first = self.loss(batch)
        self.body[1].momentum = 0.0
        second = self.loss(batch)
        self.body[1].momentum = 0.1
        return first + second


@pytest.mark.parametrize(
    "module",
    [
        lambda: with_norm(nn.BatchNorm2d(4, momentum=None)),
        lambda: with_norm(nn.BatchNorm2d(4, momentum=0.01, eps=1e-3)),
        lambda: with_norm(nn.BatchNorm2d(4, affine=False)),
        lambda: with_norm(pretrained_and_still()),
        lambda: with_norm(nn.BatchNorm2d(4).requires_grad_(False).eval()),
        lambda: with_norm(nn.BatchNorm2d(4, momentum=0.0).requires_grad_(False)),
        lambda: with_norm(nn.InstanceNorm2d(4)),
        lambda: with_norm(nn.GroupNorm(1, 4)),
        lambda: with_norm(nn.LayerNorm([4, 2, 2])),
        lambda: with_norm(nn.SyncBatchNorm(4)) if torch.cuda.is_available() else Net(),
        ByHand,
        TwoPasses,
    ],
)
def test_no_finding(module):
    assert kinds(module()) == []


def test_a_small_variance_is_not_blamed_on_the_usual_eps():
    module = Net()
    nn.init.normal_(module.body[0].weight, std=1e-6)
    nn.init.zeros_(module.body[0].bias)
    assert "normalisation_off" not in kinds(module)
