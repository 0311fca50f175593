"""What the tensors of a batch say about outputs (4, 3)."""

import pytest
import torch

from lightning_trainingkit.nn.averaging.batch_targets import class_targets

X = torch.rand(4, 1, 2, 2)
LABELS = torch.tensor([0, 2, 1, 0])
ONE_HOT = torch.nn.functional.one_hot(LABELS, 3)
MANY = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]])
VALUES = torch.randn(4, 3)
ROWS = torch.rand(4, 3)  # images of a table, with as many columns as there are classes


@pytest.mark.parametrize(
    ("batch", "inputs", "expected"),
    [
        ((X, LABELS), [X], True),
        ((X, LABELS[:, None].int()), [X], True),
        ({"label": LABELS, "image": X}, [X], True),
        ((X, ONE_HOT), [X], True),
        ((X, ONE_HOT.bool()), [X], True),
        ((X, 0.6 * ONE_HOT + 0.4 * ONE_HOT.flip(0)), [X], True),
        ((X, (0.6 * ONE_HOT + 0.4 / 3).bfloat16()), [X], True),
        ((X, torch.tensor([0, -100, 2, 1])), [X], True),  # one is ignored
        ((X, torch.tensor([-100] * 4)), [X], None),
        ((ROWS, LABELS), [ROWS], True),
        ((ROWS, LABELS), [], True),
        ((X, LABELS, torch.rand(4)), [X], True),  # with weights of the samples
        ((X, MANY), [X], False),
        ((X, MANY.float()), [X], False),
        ((X, MANY.bool(), torch.tensor([0, 1, 2, 0])), [X], False),  # with a number of each sample
        ((X, VALUES), [], False),
        ((X, VALUES[:, 0]), [X], False),
        ((X, VALUES[:, :1]), [X], False),
        ((X,), [X], None),
        (X, [X], None),
        (ROWS, [], None),
        ((X, torch.tensor([7, 8, 9, 10])), [X], None),
        ((X, ["a", "b", "c", "d"]), [X], None),
        ("text", [], None),
    ],
)
def test_kinds_of_batches(batch, inputs, expected):
    found, described = class_targets(batch, {id(each) for each in inputs}, (4, 3))
    assert found is expected
    assert bool(described) == (found is False)
