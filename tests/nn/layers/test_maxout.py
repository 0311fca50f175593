import pytest
import torch
from torch import nn

from lightning_trainingkit.nn import Maxout
from lightning_trainingkit.nn.layers.maxout import widen_layer, widen_norm


@pytest.mark.parametrize(("shape", "dim"), [((2, 6), -1), ((2, 6, 5), 1), ((2, 6, 5, 4), -3), ((2, 3, 12), -1)])
@pytest.mark.parametrize("pieces", [2, 3])
def test_it_takes_the_largest_of_neighbouring_channels(shape, dim, pieces):
    z = torch.randn(shape)
    channels = z.movedim(dim, 0)
    expected = [channels[i : i + pieces].amax(0) for i in range(0, len(channels), pieces)]
    assert torch.equal(Maxout(pieces, dim)(z), torch.stack(expected).movedim(0, dim))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(4, 6), torch.randn(3, 4)),
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), torch.randn(3, 4, 5, 5)),
        (nn.Conv2d(4, 8, 3, groups=4), torch.randn(3, 4, 5, 5)),
        (nn.Conv1d(4, 6, 3, stride=2, dilation=2), torch.randn(3, 4, 9)),
    ],
)
def test_the_first_piece_of_a_wider_layer_computes_what_the_layer_did(layer, x):
    layer.requires_grad_(False)
    wide = widen_layer(layer, 2)
    y = layer(x)
    dim = -1 if isinstance(layer, nn.Linear) else 1
    pieces = wide(x).unflatten(dim, (-1, 2))
    assert torch.allclose(pieces.select(dim if dim == -1 else 2, 0), y, atol=1e-6)
    assert not torch.allclose(pieces.select(dim if dim == -1 else 2, 1), y, atol=1e-2)
    assert not any(each.requires_grad for each in wide.parameters())


def test_new_pieces_have_the_mean_and_the_spread_of_the_old_weights():
    layer = nn.Linear(200, 100)
    nn.init.normal_(layer.weight, 0.5, 0.3)
    new = widen_layer(layer, 2).weight[1::2]
    assert new.mean().item() == pytest.approx(0.5, abs=0.02)
    assert new.std().item() == pytest.approx(0.3, rel=0.05)


def test_a_wider_batch_norm_treats_each_piece_like_the_channel_before():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.uniform_(), norm.running_var.uniform_(), nn.init.uniform_(norm.weight)
    x = torch.randn(2, 3, 4, 4)
    wide = widen_norm(norm, 2).eval()
    assert torch.allclose(wide(x.repeat_interleave(2, 1)), norm.eval()(x).repeat_interleave(2, 1))


def test_bad_arguments():
    with pytest.raises(ValueError, match="`pieces` must be at least 2, got 1"):
        Maxout(1)
    with pytest.raises(ValueError, match="multiple of 2 channels in dimension 1, got 3"):
        Maxout()(torch.randn(2, 3))
