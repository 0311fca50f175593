import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.drop_connect import drop_connect_linear


@given(
    n=st.integers(1, 3),
    positions=st.integers(0, 3),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    rate=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)
def test_it_equals_a_loop_over_examples_and_weights(n, positions, sizes, rate, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = sizes
    shape = (n, positions, inputs) if positions else (n, inputs)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    bias = torch.randn(outputs, generator=generator, dtype=torch.float64)
    kept = torch.randint(2, (n, outputs, inputs), generator=generator).double()
    y = drop_connect_linear(x, weight, bias, kept, rate)
    rows, found = x.reshape(n, -1, inputs), y.reshape(n, -1, outputs)
    for example, position, o in itertools.product(range(n), range(rows.shape[1]), range(outputs)):
        kept_weights = kept[example, o] * weight[o]
        slow = sum(kept_weights[i] * rows[example, position, i] for i in range(inputs)) / (1 - rate) + bias[o]
        torch.testing.assert_close(found[example, position, o], slow)
    assert y.shape == (*shape[:-1], outputs)


def test_the_mean_over_all_masks_is_the_plain_map():
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).reshape(64, 2, 3)
    x, weight = torch.randn(3), torch.randn(2, 3)
    y = drop_connect_linear(x.expand(64, 3), weight, None, masks, rate=0.5)
    torch.testing.assert_close(y.mean(0), weight @ x)
