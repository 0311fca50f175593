"""Tracing leaves other threads alone."""

import threading

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.structure.tracing import Trace


class Slow(nn.Module):
    """Is traced for as long as another thread needs to make some calls."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def forward(self, x):
        x = self.first(x)
        self.begun.set()
        self.go_on.wait(20)
        return self.last(x)


def in_thread(function):
    results = []

    def run():
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


@pytest.mark.parametrize("other", ["another module", "the traced layers"])
def test_another_threads_modules_run_as_ever_meanwhile(other):
    slow, x = Slow(), torch.rand(2, 3)
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval() if other == "another module" else slow.last
    expected = net(x)
    tracing, traces = in_thread(lambda: list(Trace(slow).calls.values()))
    assert slow.begun.wait(20)
    found = [net(x) for _ in range(100)]
    weights = list(net.parameters())
    slow.go_on.set()
    tracing.join()
    assert traces == [["first", "last"]]
    assert all(torch.equal(each, expected) for each in found)
    assert all(type(each) is nn.Parameter for each in weights)


def test_two_threads_trace_one_after_the_other_and_leave_torch_as_found():
    before = nn.Module.__call__, nn.Module.__getattr__
    slow, other = Slow(), nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    first, traces = in_thread(lambda: list(Trace(slow).calls.values()))
    assert slow.begun.wait(20)
    second, others = in_thread(lambda: list(Trace(other).calls.values()))
    slow.go_on.set()
    first.join()
    second.join()
    assert (traces, others) == ([["first", "last"]], [["0", "1"]])
    assert (nn.Module.__call__, nn.Module.__getattr__) == before
