import math

import pytest
import torch
from torch.nn import functional as F

from lightning_trainingkit.nn.diagnostics.first_batch import initial_loss
from lightning_trainingkit.nn.diagnostics.loss_calls import LossSpy

CLASSES, ROWS = torch.arange(6) % 3, torch.eye(3)[torch.arange(6) % 3]
WEIGHT = torch.tensor([0.2, 1.0, 5.0])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda x: F.cross_entropy(x, CLASSES), math.log(3)),
        (lambda x: F.cross_entropy(x, CLASSES, weight=WEIGHT, label_smoothing=0.1), math.log(3)),
        (lambda x: F.cross_entropy(x, CLASSES, reduction="sum"), None),
        (lambda x: F.nll_loss(x.log_softmax(1), CLASSES, weight=WEIGHT), math.log(3)),
        (lambda x: F.binary_cross_entropy_with_logits(x, ROWS), math.log(2)),
        (lambda x: F.binary_cross_entropy_with_logits(x, ROWS, weight=WEIGHT), None),
        (lambda x: F.binary_cross_entropy_with_logits(x, ROWS, pos_weight=WEIGHT), None),
        (lambda x: F.multi_margin_loss(x, CLASSES), 2 / 3),
        (lambda x: F.multi_margin_loss(x, CLASSES, margin=2.0), None),
        (lambda x: F.multi_margin_loss(x, CLASSES, weight=WEIGHT), None),
    ],
)
def test_the_loss_of_outputs_that_say_nothing_is_what_the_loss_gives(loss, expected):
    with LossSpy() as spy:
        value = loss(torch.zeros(6, 3))
    (call,) = [call for call in spy.calls if call.name != "log_softmax"]
    found = initial_loss(call)
    assert found == (None if expected is None else pytest.approx(expected))
    if found is not None:
        assert found == pytest.approx(float(value))
