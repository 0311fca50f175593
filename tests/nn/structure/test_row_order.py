import pytest
import torch
from torch import fx, nn

from lightning_trainingkit.nn.structure.row_order import keeps_rows


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda x: x.permute(0, 2, 1), True),
        (lambda x: x.permute(1, 0, 2), False),
        (lambda x: x.transpose(1, 2), True),
        (lambda x: torch.transpose(x, 0, 1), False),
        (lambda x: x.transpose(-1, -2), False),  # of a matrix these are the rows
        (lambda x: x.flatten(1), True),
        (lambda x: torch.flatten(x), False),
        (lambda x: x.unsqueeze(1), True),
        (lambda x: x.unsqueeze(0), False),
        (lambda x: x[:, ::2], True),
        (lambda x: x[::2], False),
        (lambda x: torch.roll(x, shifts=(1, 1), dims=(1, 2)), True),
        (lambda x: torch.roll(x, 1, 0), False),
        (lambda x: torch.roll(x, 1), False),
        (lambda x: x.reshape(x.shape[0], -1), True),
        (lambda x: x.view(x.size(0), -1), True),
        (lambda x: x.reshape(x.size()[0], -1), True),
        (lambda x: x.reshape(-1, x.shape[2]), False),
        (lambda x: x.reshape(x.shape[1], -1), False),
    ],
)
def test_what_is_said_of_rows_is_true(change, kept):
    graph = fx.symbolic_trace(type("Net", (nn.Module,), {"forward": lambda self, x: change(x)})()).graph
    source, node = next(iter(graph.nodes)), list(graph.nodes)[-2]
    assert keeps_rows(node, {source}) is kept
    x = torch.arange(4.0)[:, None, None].expand(4, 3, 2)  # each row holds its own number
    y = change(x)
    same = y.shape[0] == 4 and all((y[row] == row).all() for row in range(4))
    assert same or not kept
