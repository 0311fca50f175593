import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import LinearTransformation

from lightning_trainingkit.nn.layers.decorrelate import Decorrelate
from lightning_trainingkit.nn.layers.standardize import Standardize


@pytest.fixture
def layer():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(18, 18, generator=generator, dtype=torch.float64) + 5 * torch.eye(18)
    return Decorrelate(torch.rand(2, 3, 3, generator=generator), matrix)


def test_it_is_torchvisions_linear_transformation_with_rows_for_columns(layer):
    x = torch.rand(5, 2, 3, 3)
    peer = LinearTransformation(layer.matrix.T, layer.mean.flatten())
    torch.testing.assert_close(layer(x), peer(x))
    torch.testing.assert_close(layer(x[0]), layer(x)[0])


def test_the_inverse_gives_the_images_back(layer):
    x = torch.rand(5, 2, 3, 3)
    torch.testing.assert_close(layer.inverse(layer(x)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.inverse(layer(x[0])), x[0], atol=1e-5, rtol=0)


def test_bytes_count_from_0_to_1_and_the_dtype_of_floats_stays(layer):
    x = torch.randint(256, (4, 2, 3, 3), dtype=torch.uint8)
    torch.testing.assert_close(layer(x), layer(x.float() / 255))
    assert layer(x.double()).dtype == torch.float64
    with pytest.raises(TypeError, match=r"`x` must be bytes or floats, got torch.int32"):
        layer(x.int())


def test_autocast_does_not_round_the_sums(layer):
    x = torch.rand(5, 2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(x)
    assert torch.equal(inside, layer(x))


@pytest.mark.slow
def test_both_layers_compile_without_a_graph_break(layer):
    net = nn.Sequential(Standardize([0.5, 0.4], [0.2, 0.3]), layer)
    compiled = torch.compile(net, fullgraph=True)
    for x in (torch.rand(5, 2, 3, 3), torch.randint(256, (5, 2, 3, 3), dtype=torch.uint8)):
        torch.testing.assert_close(compiled(x), net(x))


def test_bad_shapes_and_numbers():
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(D, D\) .* got \(4, 4\) for \(1, 3, 3\)"):
        Decorrelate(torch.zeros(1, 3, 3), torch.eye(4))
    with pytest.raises(ValueError, match="must be finite"):
        Decorrelate(torch.zeros(1, 1, 2), torch.full((2, 2), torch.nan))
