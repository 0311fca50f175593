import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_trainingkit.nn.initialization.frozen_layers import find_copies, is_frozen


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("change", [lambda layer: layer, parametrizations.weight_norm, nn.utils.weight_norm])
def test_frozen_however_the_weight_is_held(change):
    layer = change(nn.Linear(4, 4))
    assert not is_frozen(layer)
    assert is_frozen(layer.requires_grad_(False))


def test_copies_are_equal_to_the_last_bit_and_of_one_kind():
    source = nn.Linear(4, 4)
    near = copy.deepcopy(source)
    with torch.no_grad():
        near.weight[0, 0] = near.weight[0, 0].nextafter(torch.tensor(9.0))
    others = {
        "copy": copy.deepcopy(source),
        "near": near,
        "double": copy.deepcopy(source).double(),
        "shape": nn.Linear(4, 5),
        "lazy": nn.LazyLinear(4),
        "meta": nn.Linear(4, 4, device="meta"),
    }
    assert find_copies(others, {"source": source, "lazy": nn.LazyLinear(4)}) == {"copy": "source"}
    nan = nn.Linear(4, 4)
    nn.init.constant_(nan.weight, torch.nan)
    assert find_copies({"copy": copy.deepcopy(nan)}, {"nan": nan}) == {}


def test_the_longest_common_end_of_the_names_decides():
    layer = nn.Linear(4, 4)
    sources = {f"net.{n}.linear": copy.deepcopy(layer) for n in range(3)}
    copies = {f"target.{n}.linear": layer for n in range(3)} | {"linear": layer}
    assert find_copies(copies, sources) == {
        **{f"target.{n}.linear": f"net.{n}.linear" for n in range(3)},
        "linear": "net.0.linear",
    }
