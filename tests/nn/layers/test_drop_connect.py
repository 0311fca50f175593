import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.layers.drop_connect import DroppedWeights

LAYERS = [
    (nn.Linear(5, 3), (4, 5)),
    (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (4, 2, 6)),
    (nn.Conv2d(4, 6, 3, groups=2), (4, 4, 5, 5)),
    (nn.Conv3d(1, 2, 2, bias=False), (2, 1, 3, 3, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_the_output_is_that_of_a_layer_with_the_dropped_weights(layer, shape):
    x, keys = torch.randn(shape), list(layer.state_dict())
    noise = DroppedWeights(layer, 0.4, "batch", by="DropConnect")
    torch.manual_seed(3)
    y = layer(x)
    plain = copy.deepcopy(layer)
    plain.forward.remove()
    torch.manual_seed(3)
    kept = nn.functional.dropout(torch.ones_like(plain.weight), 0.4)  # torch draws the same mask for ones
    with torch.no_grad():
        plain.weight *= kept
    torch.testing.assert_close(y, plain(x))
    assert list(layer.state_dict()) == keys
    noise.remove()
    assert "forward" not in vars(layer)


def test_evaluation_and_removal_are_exact_and_copies_are_noisy_on_their_own():
    layer, x = nn.Linear(50, 3), torch.randn(4, 50)
    expected = layer(x)
    noise = DroppedWeights(layer, 0.4, "sample", by="DropConnect")
    twin = pickle.loads(pickle.dumps(layer))
    assert not torch.equal(layer(x), expected)
    assert torch.equal(layer.eval()(x), expected)
    layer.train()
    noise.remove()
    assert torch.equal(layer(x), expected)
    assert not torch.equal(twin(x), expected)


def test_each_example_has_a_mask_of_its_own():
    layer = nn.Linear(50, 3)
    DroppedWeights(layer, 0.4, "sample", by="DropConnect")
    assert len(layer(torch.ones(4, 50)).unique(dim=0)) == 4
    rows = layer(torch.ones(2, 7, 50))
    assert rows.std(1).max() < 1e-5  # the positions of an example share it
    assert not torch.allclose(rows[0], rows[1])
    batch = nn.Linear(50, 3)
    DroppedWeights(batch, 0.4, "batch", by="DropConnect")
    assert batch(torch.ones(4, 50)).std(0).max() < 1e-5


@pytest.mark.parametrize("mask", ["batch", "sample"])
def test_the_mean_is_the_plain_output(mask):
    torch.manual_seed(0)
    layer, x = nn.Linear(20, 2), torch.randn(1, 20)
    plain = layer(x)
    DroppedWeights(layer, 0.3, mask, by="DropConnect")
    draws = torch.stack([layer(x) for _ in range(3000)])
    error = draws.std(0) / 3000**0.5
    assert ((draws.mean(0) - plain).abs() < 4 * error).all()
