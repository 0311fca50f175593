import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_trainingkit.nn.layers.small_resnet import SmallResNet


@settings(max_examples=10, deadline=None)
@given(side=st.integers(5, 33), channels=st.integers(1, 4), classes=st.integers(2, 12))
def test_takes_any_small_image(side, channels, classes):
    net = SmallResNet(classes, in_channels=channels, width=4)
    assert net(torch.rand(2, channels, side, side)).shape == (2, classes)


def test_size():
    assert sum(p.numel() for p in SmallResNet(10).parameters()) == 309_162


def test_every_parameter_gets_a_gradient():
    net = SmallResNet(3, width=4)
    net(torch.rand(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_evaluation_looks_at_each_image_alone():
    net = SmallResNet(3, width=4).eval()
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


@pytest.mark.parametrize("name", ["num_classes", "in_channels", "width"])
def test_bad_argument(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        SmallResNet(**{"num_classes": 3, name: 0})
