import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from lightning_trainingkit.nn.diagnostics.first_input import FirstInput


class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(input=x / 100)


@pytest.mark.parametrize(
    ("net", "x", "size"),
    [
        (nn.Linear(3, 2), torch.full((4, 3), -7.0), 7),
        (Scales(), torch.full((4, 3), 300.0), 3),
        (nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1)), torch.full((4, 2, 5), 2.0), 2),
        (nn.GRU(3, 2), pack_sequence([torch.full((2, 3), 5.0), torch.full((1, 3), 5.0)]), 5),
        (nn.ReLU(), torch.ones(3), None),
    ],
)
def test_the_first_called_layer_is_measured(net, x, size):
    with FirstInput(net) as first:
        net(x)
    assert first.size == pytest.approx(size) if size else first.size is None
    assert not any(layer._forward_pre_hooks for layer in net.modules())
