import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_trainingkit.nn.diagnostics.loss_calls import LossSpy

X, Y = torch.randn(8, 10, generator=torch.Generator().manual_seed(0)), torch.arange(8)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), "cross_entropy"),
        (lambda x, y: F.cross_entropy(target=y, input=x), "cross_entropy"),
        (lambda x, y: F.nll_loss(x.log_softmax(1), y), "nll_loss"),
        (lambda x, y: nn.BCEWithLogitsLoss()(x, F.one_hot(y, 10).float()), "binary_cross_entropy_with_logits"),
        (lambda x, y: nn.MSELoss()(x, F.one_hot(y, 10).float()), "mse_loss"),
        (nn.MultiMarginLoss(), "multi_margin_loss"),
    ],
)
def test_a_loss_is_recorded_and_returns_what_it_returns_alone(loss, name):
    alone = loss(X, Y)
    with LossSpy() as spy:
        watched = loss(X, Y)
    assert torch.equal(watched, alone)
    calls = [call for call in spy.calls if call.name != "log_softmax"]
    assert [call.name for call in calls] == [name]
    assert calls[0].input.shape == X.shape
    assert torch.equal(calls[0].result, alone)


def test_a_compiled_model_is_no_obstacle():
    net = torch.compile(nn.Linear(10, 10), backend="eager")
    with torch.compiler.set_stance("force_eager"), LossSpy() as spy:
        F.cross_entropy(net(X), Y)
    assert [call.name for call in spy.calls] == ["cross_entropy"]


def test_nothing_is_recorded_outside_of_the_block():
    with LossSpy() as spy:
        pass
    F.cross_entropy(X, Y)
    assert spy.calls == []
