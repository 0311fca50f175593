import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit.nn.layers.standardize import Standardize


def test_channels_are_normalised_as_by_torchvision():
    x = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    before = x.clone()
    layer = Standardize(mean, std)
    assert torch.equal(layer(x), F.normalize(x, mean, std))
    assert torch.equal(layer(x[0]), F.normalize(x[0], mean, std))
    assert torch.equal(x, before)
    torch.testing.assert_close(layer.inverse(layer(x)), x)


def test_a_mean_image():
    x, mean = torch.rand(4, 2, 3, 3), torch.rand(2, 3, 3)
    assert torch.equal(Standardize(mean)(x), x - mean)
    torch.testing.assert_close(Standardize(mean, mean + 1)(x), (x - mean) / (mean + 1))
    torch.testing.assert_close(Standardize(mean, [2.0, 4.0])(x)[:, 1], (x - mean)[:, 1] / 4)


def test_bytes_count_from_0_to_1():
    x = torch.randint(256, (4, 1, 3, 3), dtype=torch.uint8)
    layer = Standardize([0.3], [0.2])
    torch.testing.assert_close(layer(x), layer(x.float() / 255))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_of_floats_stays(dtype):
    x = torch.rand(2, 1, 3, 3).to(dtype)
    layer = Standardize([0.5], [0.25])
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x), ((x.double() - 0.5) / 0.25).to(dtype))


def test_the_first_layer_of_a_model_moves_and_is_saved_with_it():
    net = nn.Sequential(Standardize([0.5], [0.25]), nn.Flatten(), nn.Linear(9, 2))
    assert [name for name, _ in net.named_parameters()] == ["2.weight", "2.bias"]
    other = nn.Sequential(Standardize([0.0]), nn.Flatten(), nn.Linear(9, 2))
    other.load_state_dict(net.state_dict())
    x = torch.rand(2, 1, 3, 3)
    assert torch.equal(other(x), net(x))
    assert net.double()(x.double()).dtype == torch.float64
    x.requires_grad_()
    net.float()(x).sum().backward()
    assert x.grad is not None


def test_the_numbers_are_shown():
    assert repr(Standardize([0.5], [0.25])) == "Standardize(mean=[0.5], std=[0.25])"
    shown = "Standardize(mean of shape (1, 3, 3), std of shape (1, 1, 1))"
    assert repr(Standardize(torch.zeros(1, 3, 3))) == shown


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.0], "`std` must be above 0, got 0"),
        ([0.5], [0.1, 0.2], r"`std` must have the shape of `mean`, \(1, 1, 1\), or a number for each of its 1"),
        ([float("nan")], None, "`mean` must be finite, got NaN"),
        (torch.zeros(3, 3), None, r"`mean` must be a number for each channel or have shape \(C, H, W\), got shape"),
        ([], None, "`mean` must be a number for each channel"),
    ],
)
def test_bad_numbers(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Standardize(mean, std)


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"`x` must be bytes or floats, got torch.int64"):
        Standardize([0.5])(torch.ones(1, 1, 2, 2).long())
