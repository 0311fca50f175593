import pytest
import torch

from lightning_trainingkit.nn.diagnostics.equal_units import spread_between_units


def whole(weight):
    flat = weight.flatten(1)
    return ((flat - flat[:1]).abs().max() / flat.abs().max()).item()


@pytest.mark.parametrize("shape", [(2, 3), (64, 64), (65, 1000), (300, 20, 3, 3), (1000, 2)])
def test_random_weights_have_a_large_spread(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = spread_between_units({"w": weight})["w"]
    assert 0.3 < found <= 2
    if max(weight.flatten(1).shape) <= 64:
        assert found == pytest.approx(whole(weight))


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize("shape", [(5, 7), (300, 20, 3, 3)])
def test_a_small_spread_is_that_of_all_weights(shape, spread):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, *shape[1:], generator=generator).repeat(shape[0], *[1] * (len(shape) - 1))
    weight += spread * torch.rand(shape, generator=generator)
    assert spread_between_units({"w": weight})["w"] == pytest.approx(whole(weight), abs=1e-7)


def test_one_weight_that_differs_is_found():
    weight = torch.ones(1000, 1000)
    weight[501, 503] = 2
    assert spread_between_units({"w": weight}) == {"w": 0.5}


def test_no_units_no_answer():
    weights = {"bias": torch.ones(3), "one": torch.ones(1, 3), "none": torch.ones(0, 3), "zeros": torch.zeros(3, 3)}
    weights["a gain each"] = torch.ones(3, 1, 1)
    assert spread_between_units(weights) == {"zeros": 0.0}
