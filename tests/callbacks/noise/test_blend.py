from contextlib import suppress

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import Blend, CutMix, Mixup
from tests.callbacks.noise.fixed_blends import FixedCutMix, FixedMixup, Spy, blended_by_hand, data, fit
from tests.callbacks.noise.test_training_batch import Kill, Places, Plain
from tests.toy import difference, toy_trainer


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


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("targets", ["pair", "soft"])
def test_killed_in_mid_epoch_and_resumed_from_the_last_validation(targets, tmp_path):
    """Epochs of 4 batches, validated after 2 and 4: the same batches and blends, the same weights."""

    def train(folder, seed, *callbacks, ckpt_path=None):
        torch.manual_seed(seed)
        data = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        batches = Places(TensorDataset(data, torch.arange(16) % 2), 4, shuffle=True, generator=torch.Generator())
        module = Plain()
        save = ModelCheckpoint(tmp_path / folder, save_top_k=-1, save_on_train_epoch_end=False)
        blend = Blend([each(2, targets=targets, alpha=1.0) for each in (Mixup, CutMix)])
        options = {"val_check_interval": 0.5, "num_sanity_val_steps": 0, "default_root_dir": tmp_path}
        trainer = toy_trainer(blend, save, *callbacks, **options)
        with suppress(SystemExit):
            trainer.fit(module, batches, DataLoader(batches.dataset, 16), ckpt_path=ckpt_path)
        return module, trainer

    unbroken, _ = train("unbroken", 0)
    _, broken = train("broken", 0, Kill(3))
    resumed, _ = train("broken", 1, ckpt_path=broken.checkpoint_callback.best_model_path)
    seen = resumed.seen["train"]
    assert len(seen) > (6 if targets == "pair" else 5)  # two calls for a blended batch
    for ours, theirs in zip(seen, unbroken.seen["train"][-len(seen) :], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert difference(resumed.state_dict(), unbroken.state_dict()) == 0
