import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_trainingkit import Blend, CutMix, Mixup
from tests.callbacks.noise.fixed_blends import FixedCutMix, FixedMixup, Spy, blended_by_hand, data, fit


def kinds(blend, epochs=20):
    """Which blend each batch got."""
    x, _ = data()
    pieces = x.split(4)
    expected = {
        name: [blended_by_hand(callback, piece)[0] for piece in pieces]
        for name, callback in (("mixup", FixedMixup()), ("cutmix", FixedCutMix()))
    }
    found = []

    def step(module, batch):
        found.extend(
            name for name, images in expected.items() if any(torch.allclose(batch[0], image) for image in images)
        )
        return cross_entropy(module(batch[0]), batch[1])

    fit(Spy(step), blend, max_epochs=epochs)
    return found[::2]  # two calls for each batch


def test_one_blend_is_picked_for_each_batch():
    blend = Blend([FixedMixup(3), FixedCutMix(3)], weights=[0.25, 0.75], seed=0)
    found = kinds(blend)
    assert len(found) == 60
    assert found.count("mixup") == pytest.approx(15, abs=9)
    assert kinds(blend) == found  # the same seed


def test_metrics_and_soft_targets_of_both():
    x, y = data()
    batches = []

    def step(module, batch):
        batches.append(batch)
        return cross_entropy(module(batch[0]), batch[1])

    fit(Spy(step), Blend([Mixup(3, targets="soft", draw="image"), CutMix(3, targets="soft")]), x, y, max_epochs=3)
    assert all(soft.shape == (4, 3) for _, soft in batches)
    torch.testing.assert_close(torch.stack([soft.sum(1) for _, soft in batches]), torch.ones(9, 4))


WRONG = {
    "targets": ([Mixup(3), CutMix(3, targets="soft")], ValueError, "`targets` must be the same for all blends"),
    "classes": ([Mixup(3), CutMix()], ValueError, "`num_classes` must be the same for all blends, got 3 and None"),
    "until": ([Mixup(3, until=0.5)], ValueError, "`until` must be left out inside of Blend, got 0.5 for Mixup"),
    "other": ([Mixup(3), "cutmix"], TypeError, "`blends` must hold Mixup and CutMix objects, got 'cutmix'"),
    "none": ([], ValueError, "`blends` must hold at least one blend"),
}


@pytest.mark.parametrize("name", WRONG)
def test_entries_that_do_not_fit(name):
    blends, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        Blend(blends)
    with pytest.raises(ValueError, match="`weights` must be positive or 0 and sum to 1"):
        Blend([Mixup(3), CutMix(3)], weights=[1.0, 1.0])
