import copy
import inspect
import pickle
from types import MethodType

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.transfer.boundary import Boundary
from lightning_trainingkit.nn.transfer.disk_room import DiskRoom
from lightning_trainingkit.nn.transfer.feature_cache import FeatureCache, replace_forward


def cached(folder=None, dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5).requires_grad_(False), nn.Linear(5, 2)).to(dtype)
    room = None if folder is None else DiskRoom(folder)
    return model, FeatureCache(Boundary(model, model.forward, "1"), room)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_computed_once_for_each_image_whatever_its_place(on_disk, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_trainingkit.nn.transfer.feature_cache._BLOCK_BYTES", 100)  # a few rows
    model, cache = cached(tmp_path / "folder" if on_disk else None, dtype)
    x, seen = torch.randn(50, 3).to(dtype), []
    expected = model[0](x)
    model[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for first in (0, 5, 3, 20):
        torch.testing.assert_close(cache.features(x[first : first + 7]), expected[first : first + 7])
    assert seen == [7, 5, 7]
    torch.testing.assert_close(cache.features(x.flip(0)), expected.flip(0))
    assert sum(seen) == 50
    assert (cache.hits, cache.misses) == (2 + 7 + 19, 7 + 5 + 7 + 31)
    assert cache.bytes == 50 * 5 * dtype.itemsize
    assert cache.features(x).dtype == dtype
    assert not on_disk or not list((tmp_path / "folder").iterdir())  # the files have no name any more


def test_equal_images_are_stored_once_and_the_module_may_work_in_place():
    _, cache = cached()
    x = torch.ones(4, 3)
    first = cache.features(x).clone()
    cache.features(x).zero_()
    assert torch.equal(cache.features(x), first)
    assert cache.bytes == 5 * 4


def test_features_stored_in_inference_mode_can_be_trained_on():
    model, cache = cached()
    with torch.inference_mode():
        cache.features(torch.ones(1, 3))
    model[1](cache.features(torch.ones(1, 3))).sum().backward()
    assert model[1].weight.grad.abs().sum() > 0


def test_two_known_images_are_compared_when_asked_for():
    model, cache = cached()
    x = torch.rand(4, 3)
    cache.features(x)
    cache.compares = True
    model[0].bias.add_(1e-8)  # up to rounding
    cache.features(x)
    cache.compares = True
    model[0].bias.add_(1)
    with pytest.raises(RuntimeError, match="got Sequential: other features of the same images"):
        cache.features(x)


def test_a_replaced_forward_is_put_back_and_copies_have_their_own():
    for found in (None, lambda self, x: nn.Linear.forward(self, x) + 1):
        layer = nn.Linear(2, 2)
        if found is not None:
            layer.forward = MethodType(found, layer)
        x, before = torch.rand(1, 2), dict(vars(layer))
        expected = layer(x)
        put_back = replace_forward(layer, lambda x: "run")
        assert layer(x) == "run"
        assert list(inspect.signature(layer.forward).parameters) == ["input" if found is None else "x"]
        copied = copy.deepcopy(layer)
        assert torch.equal(copied(x), expected)
        with torch.no_grad():
            copied.weight.zero_()
        assert not torch.equal(copied(x), expected)
        put_back()
        assert vars(layer) == before
    layer = nn.Linear(2, 2)
    replace_forward(layer, lambda x: "run")
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), nn.functional.linear(x, layer.weight, layer.bias))
