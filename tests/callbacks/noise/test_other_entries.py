"""Batches with more than images and one target, in front of callbacks that blend."""

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader

from tests.callbacks.noise.fixed_blends import FixedCutMix, FixedMixup, Spy, data
from tests.toy import toy_trainer


def fit(callback, step=None, **entries):
    x, y = data(4)
    module = Spy(step or (lambda module, batch: cross_entropy(module(batch["image"]), batch["label"])))
    rows = [{"image": x[i], "label": y[i], **{key: value[i] for key, value in entries.items()}} for i in range(len(x))]
    toy_trainer(callback, max_epochs=1, limit_val_batches=0).fit(module, DataLoader(rows, 4))


@pytest.mark.parametrize("callback", [FixedMixup(3), FixedCutMix(3)])
def test_a_second_target_and_the_weight_of_a_sample_go_with_the_target(callback):
    ages, weights, losses = torch.rand(4), torch.rand(4), []

    def loss(module, logits, label, age, weight):
        return (weight * cross_entropy(logits, label, reduction="none")).mean() + mse_loss(logits[:, 0], age)

    def step(module, batch):
        logits = module(batch["image"])
        losses.append(loss(module, logits, batch["label"], batch["age"], batch["weight"]))
        expected.append(loss(module, logits, *parts[len(expected)]))
        return losses[-1]

    _, y = data(4)
    parts, expected = [(y, ages, weights), (y.flip(0), ages.flip(0), weights.flip(0))], []
    fit(callback, step, age=ages, weight=weights)
    assert losses == expected
    assert len(losses) == 2


@pytest.mark.parametrize("callback", [FixedMixup(3), FixedCutMix(3)])
def test_a_second_tensor_of_images_is_refused(callback):
    callback.image = "image"
    with pytest.raises(ValueError, match=r"one tensor of images for .*, got 'view' beside 'image'"):
        fit(callback, view=torch.zeros(4, 1, 4, 4))


@pytest.mark.parametrize(
    "callback",
    [FixedMixup(3, targets="soft", target="label"), FixedCutMix(3, target="mask"), FixedCutMix(target="label")],
)
def test_a_second_target_is_refused_where_the_step_is_called_once(callback):
    with pytest.raises(ValueError, match=r"one target for .*, got 'mask|label' beside 'label|mask'.*Use Mixup with"):
        fit(callback, mask=torch.zeros(4, 4, 4, dtype=torch.long))


def test_entries_that_stay_are_told(caplog):
    with caplog.at_level("INFO"):
        fit(FixedMixup(3, targets="soft"), number=torch.arange(4))
    assert "FixedMixup blends 'image' and 'label'. Other entries stay those of the image: 'number'." in caplog.messages
