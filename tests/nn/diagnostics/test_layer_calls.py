"""What is seen of the calls of layers, without a Trainer."""

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.diagnostics.layer_calls import CallFact, LayerCalls
from lightning_trainingkit.nn.diagnostics.modes_in_use import find_eval_mode, parts_in_eval_mode


def one_step(calls, module, *inputs, hooks=True):
    calls.begin(module, hooks=hooks)
    for x in inputs:
        module(x)
    calls.end()


def test_counts_steps_by_mode():
    net, calls = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.1)), LayerCalls()
    one_step(calls, net, torch.randn(4, 3), torch.randn(8, 3))
    net[0].eval()
    one_step(calls, net, torch.randn(4, 3))
    one_step(calls, net)
    facts = calls.facts()
    assert facts["0"] == CallFact(training=1, evaluating=1, eval_streak=1, moving=2, samples=8, values=8)
    assert (facts["1"].training, facts["1"].evaluating, calls.looks) == (2, 0, 3)


def test_without_hooks_the_modes_count_as_a_call():
    net, calls = nn.Sequential(nn.BatchNorm1d(3)).eval(), LayerCalls()
    one_step(calls, net, hooks=False)
    assert calls.facts()["0"] == CallFact(evaluating=1, eval_streak=1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, eps=2), nn.GroupNorm(1, 4, eps=2), nn.LayerNorm([4, 5, 5], eps=2)])
def test_the_variance_is_the_one_that_the_layer_divides_by(norm):
    x, calls = 3 * torch.randn(8, 4, 5, 5), LayerCalls()
    one_step(calls, norm, x)
    measured = calls.facts()[""].variance
    assert (x.std() / norm(x).std()).item() == pytest.approx((measured + 2.0) ** 0.5, rel=0.1)


def test_parts_are_the_largest_modules_in_eval_mode():
    def block():
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))

    net = nn.Sequential(block(), block(), block().eval(), block())
    net[0][2].eval()
    net[1][1].eval()  # a BatchNorm alone: on purpose
    net[3].eval().requires_grad_(False)
    trained = {parameter for parameter in net.parameters() if parameter.requires_grad}
    assert parts_in_eval_mode(net, trained) == {"0.2.1": "0.2", "2.1": "2", "2.2.1": "2"}
    assert set(parts_in_eval_mode(net.requires_grad_(True).eval(), set(net.parameters())).values()) == {""}


def test_the_last_steps_decide():
    late = {"drop": CallFact(training=20, evaluating=3, eval_streak=3)}
    back = {"drop": CallFact(training=20, evaluating=30, eval_streak=0)}
    assert find_eval_mode(late, {"drop": "net"})[0].where == "net"
    assert not find_eval_mode(back, {"drop": "net"})
