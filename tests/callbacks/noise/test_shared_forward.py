"""Steps whose layers look as if they could be shared between both targets, and cannot."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.callbacks.noise.fixed_blends import WEIGHT, FixedMixup, Spy, data, fit
from tests.toy import difference


class Scaled(nn.Module):
    """Multiplies by a number for each example."""

    def forward(self, x, by):
        return x * (by.scale if hasattr(by, "scale") else by - 100_000)[:, None]


class Kept(nn.Module):
    def forward(self, x):
        return x * (1 + self.target)[:, None]


@dataclass
class Output:
    logits: torch.Tensor


class Wrapped(nn.Module):
    def forward(self, x):
        return Output(x * 1)


def without_gradient_for_some_targets(module, batch):
    x, y = batch
    if y[1] == 1:  # true for the own targets alone
        with torch.no_grad():
            module.net(x)
    return cross_entropy(module.net(x), y)


def in_another_mode_for_some_targets(module, batch):
    x, y = batch
    if y[1] == 1:
        module.net.eval()
        module.net(x)
        module.net.train()
    return cross_entropy(module.net(x), y)


def target_in_an_object(module, batch):
    x, y = batch
    module.holder.scale = 1.0 + y
    return cross_entropy(module.scaled(module.net(x), module.holder), y)


def target_in_large_integers(module, batch):
    x, y = batch
    return cross_entropy(module.scaled(module.net(x), 100_000 + 2 * y), y)


def output_in_an_object(module, batch):
    output = module.wrapped(module.net(batch[0]))
    output.logits.mul_(3)
    return cross_entropy(output.logits, batch[1])


def dropout_in_a_reentrant_checkpoint(module, batch):
    x, y = batch
    if y[1] == 1:
        torch.manual_seed(0)
    return cross_entropy(checkpoint(module.dropped, x.requires_grad_(), use_reentrant=True), y)


def hook_at_the_output(module, batch):
    logits = module.net(batch[0])
    logits.register_hook(lambda gradient: 2 * gradient)
    return cross_entropy(logits, batch[1])


def gradient_of_a_copy_of_the_images(module, batch):
    return adversarial(module, batch[0].detach().clone().requires_grad_(), batch[1])


def gradient_of_the_images(module, batch):
    return adversarial(module, batch[0].requires_grad_(), batch[1])


def adversarial(module, x, y):
    (slope,) = torch.autograd.grad(cross_entropy(module.net(x), y), x)
    return cross_entropy(module.net((x + 0.1 * slope.sign()).detach()), y)


def weights_from_targets(module, batch):
    weights = {name: value * batch[1][1] for name, value in module.net.named_parameters()}
    return cross_entropy(functional_call(module.net, weights, (batch[0],)), batch[1])


def target_as_an_attribute(module, batch):
    module.kept.target = batch[1]
    return cross_entropy(module.kept(module.net(batch[0])), batch[1])


STEPS = [
    target_as_an_attribute,
    hook_at_the_output,
    gradient_of_a_copy_of_the_images,
    gradient_of_the_images,
    weights_from_targets,
    without_gradient_for_some_targets,
    in_another_mode_for_some_targets,
    target_in_an_object,
    target_in_large_integers,
    output_in_an_object,
    dropout_in_a_reentrant_checkpoint,
]


@pytest.mark.parametrize("step", STEPS)
def test_the_gradient_is_that_of_two_calls(step):
    module = Spy()
    module.net[1].momentum = 0.0  # running statistics stay
    module.scaled, module.wrapped, module.holder = Scaled(), Wrapped(), SimpleNamespace()
    module.kept = Kept()
    module.dropped = nn.Sequential(module.net, nn.Dropout(0.5))
    twin = copy.deepcopy(module)
    module.step = step
    x, y = data(4)
    fit(module, FixedMixup(3), x, y)

    mixed = WEIGHT * x + (1 - WEIGHT) * x.flip(0)
    loss = WEIGHT * step(twin, (mixed, y)) + (1 - WEIGHT) * step(twin, (mixed.clone(), y.flip(0)))
    loss.backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert difference(dict(module.named_parameters()), dict(twin.named_parameters())) < 1e-6
