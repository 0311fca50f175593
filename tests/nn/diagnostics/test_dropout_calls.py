import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_trainingkit.nn.diagnostics.dropout_calls import DropoutSpy, NoDropout

X = torch.ones(2, 4, 6, 8)


class Attention(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate)


@pytest.mark.parametrize(
    ("run", "names"),
    [
        (lambda x: F.dropout(x), ["F.dropout"]),
        (lambda x: F.dropout(x, 0.1, True, True), ["F.dropout"]),
        (lambda x: F.dropout2d(x, p=0.1), ["F.dropout2d"]),
        (lambda x: F.dropout(x, 0.0), []),
        (lambda x: F.dropout(x, 0.5, False), []),
        (nn.Dropout(0.5).eval(), []),
        (Attention(0.2), ["F.scaled_dot_product_attention"]),
        (Attention(0.0), []),
        (lambda x: x + torch.randn_like(x), []),
    ],
)
def test_calls_that_drop_something_are_recorded(run, names):
    with DropoutSpy() as spy:
        run(X.clone())
    assert spy.names == names


@pytest.mark.parametrize(
    "run",
    [
        lambda x: F.dropout(x),
        lambda x: F.alpha_dropout(x, 0.9, True),
        Attention(0.9),
        lambda x: F.scaled_dot_product_attention(x, x, x, None, 0.9),
    ],
)
def test_dropout_is_off_and_recorded(run):
    x = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    with NoDropout() as mode:
        dropped = [run(x), run(x)]
    kept = F.scaled_dot_product_attention(x, x, x) if "attention" in mode.names[0] else x
    assert torch.allclose(dropped[0], kept, atol=1e-6)
    assert len(mode.names) == 2
    torch.manual_seed(0)
    assert not torch.allclose(run(x), kept, atol=1e-6)  # outside of the block it drops
