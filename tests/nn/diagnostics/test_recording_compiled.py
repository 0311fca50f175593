"""A compiled model records what a plain one does, in one graph."""

import copy

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn import ActivationRecorder


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Block(nn.Module):
    """Calls its ReLU twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.second(self.relu(self.first(x))))


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Block(), nn.Linear(4, 2))


def compiled_in_place(net, **how):
    net.compile(**how)
    return net


def compiled_part(net, **how):
    net[2] = torch.compile(net[2], **how)
    return net


def compiled_forward(net, **how):
    net.forward = torch.compile(net.forward, **how)
    return net


WAYS = [torch.compile, compiled_in_place, compiled_part, compiled_forward]
BATCHES = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (8, 8, 5)]


def trained(net, recorder):
    """Record every other step; return the summaries and the gradient."""
    for step, x in enumerate([*BATCHES, *BATCHES]):
        recorder.recording = step % 2 == 0
        net(x).square().sum().backward()
    return recorder.summaries(), [each.grad for each in net.parameters()]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch, of any compiled part
@pytest.mark.parametrize(
    ("way", "ran_before"),
    [
        pytest.param(way, ran_before, marks=[] if way is WAYS[1] and ran_before else pytest.mark.slow)
        for way in WAYS
        for ran_before in (False, True)
    ],
)
def test_one_graph_records_as_plain_python_does(way, ran_before):
    plain = make()
    net = way(copy.deepcopy(plain), backend="aot_eager", fullgraph=True)
    if ran_before:
        net(BATCHES[0])
    recorder, expected = ActivationRecorder(net), ActivationRecorder(plain)
    assert recorder.layers == expected.layers == ["1", "2.relu"]
    for each in (recorder, expected):
        each.attach()
    found, expected = trained(net, recorder), trained(plain, expected)
    assert found[0] == expected[0]
    assert found[0]["1"].calls == 3
    for ours, plain_gradient in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, plain_gradient)


def test_later_windows_compile_nothing():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net = torch.compile(make(), backend=backend, fullgraph=True, dynamic=True)
    recorder = ActivationRecorder(net)
    recorder.attach()
    for _ in range(4):
        for recorder.recording in (False, True):
            net(BATCHES[0])
        recorder.reset()
    assert len(graphs) == 2  # one that records, and one that does not


@pytest.mark.slow
def test_inductor_records_too():
    plain = make()
    net = torch.compile(copy.deepcopy(plain), fullgraph=True)
    recorder, expected = ActivationRecorder(net), ActivationRecorder(plain)
    for each in (recorder, expected):
        each.attach()
    found, expected = trained(net, recorder), trained(plain, expected)
    for name, summary in expected[0].items():
        ours = found[0][name]
        assert (ours.calls, ours.images, ours.dead) == (summary.calls, summary.images, summary.dead)
        assert (ours.mean, ours.std, ours.max) == pytest.approx((summary.mean, summary.std, summary.max), rel=1e-5)
    for ours, plain_gradient in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, plain_gradient)
