"""Several replacements of one forward, taken away in any order."""

from itertools import permutations, product
from types import MethodType

import pytest
from torch import nn

from lightning_trainingkit.nn.structure.replaced_forward import take_away


def replace(module, step, bound):
    """Put a function that adds ``step`` around the forward; return what takes it away."""
    below, found = module.forward, vars(module).get("forward")

    def forward(x):
        return below(x) + step

    def method(self, x):
        return below(x) + step

    mine = vars(module)["forward"] = MethodType(method, module) if bound else forward
    return lambda: take_away(module, mine, found)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("order", "bound"), [*product(permutations(range(3)), [False, True])])
def test_the_first_forward_comes_back(order, bound, own):
    net = nn.Identity()
    if own:
        net.forward = mine = lambda x: 10 * x
    undo = [replace(net, step, bound) for step in (1, 2, 4)]
    assert net(1) == 7 + (10 if own else 1)
    for index in order:
        undo[index]()
    assert vars(net).get("forward") is (mine if own else None)
    assert net(1) == (10 if own else 1)
