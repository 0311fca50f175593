import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics.classification import MulticlassAccuracy

from lightning_trainingkit import CutMix
from tests.callbacks.noise.fixed_blends import FixedCutMix, Spy, blended_by_hand, data, fit


def seen(callback, x, y, **options):
    """The batches that the training step got."""
    batches = []

    def step(module, batch):
        batches.append(batch)
        return module(batch[0]).sum()

    fit(Spy(step), callback, x, y, **options)
    return batches


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4)])
@pytest.mark.parametrize("draw", ["batch", "image"])
@pytest.mark.parametrize("targets", ["pair", "soft"])
def test_masks_are_pasted_with_their_images_in_one_call(shape, draw, targets):
    x, _ = data()
    masks = (x[:, 0] > 0).long().view(-1, *shape)
    batches = seen(FixedCutMix(2, draw=draw, targets=targets), x, masks)
    assert len(batches) == 3
    for image, mask in batches:
        assert torch.equal((image > 0).long().view_as(mask), mask)
    assert torch.equal(batches[0][0], blended_by_hand(FixedCutMix(), x[:4])[0])


def test_pasted_masks_are_hard_targets_for_metrics_and_comparisons():
    def step(module, batch):
        classes = (batch[0] > 0).long()[:, 0]
        module.score.update(classes, batch[1])
        return module(batch[0]).sum() * (classes == batch[1]).float().mean()

    module = Spy(step)
    module.score = MulticlassAccuracy(2)
    x, _ = data()
    fit(module, FixedCutMix(2, targets="soft"), x, (x[:, 0] > 0).long())
    assert module.score.compute() == 1


def test_soft_targets_have_the_share_of_each_box():
    x, y = data(64)
    ((mixed, soft),) = seen(CutMix(3, targets="soft", draw="image", seed=0), x, y, batch_size=64)
    kept = (mixed == x).flatten(1).double().mean(1)
    own = soft[torch.arange(64), y]
    torch.testing.assert_close(soft.sum(1), torch.ones(64))
    differs = (soft * one_hot(y, 3) != 0).sum(1) + (soft > 0).sum(1) > 2  # partners of another class
    torch.testing.assert_close(own[differs].double(), kept[differs], rtol=1e-5, atol=1e-5)
    assert len(kept.unique()) > 3


def test_the_weight_of_the_loss_is_the_share_outside_of_the_clipped_box():
    losses = []

    class Watched(Spy):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            (x, _), (scores, targets, mixed) = batch, self.last
            kept = (mixed == x).float().mean().item()
            own, partners = (cross_entropy(scores, each).item() for each in (targets[0], targets[-1]))
            losses.append((outputs["loss"].item(), kept * own + (1 - kept) * partners, kept))

        def training_step(self, batch, batch_idx):
            scores = self(batch[0])
            earlier = self.last[1] if getattr(self, "last", None) and self.last[2] is batch[0] else []
            self.last = (scores.detach(), [*earlier, batch[1]], batch[0])
            return cross_entropy(scores, batch[1])

    fit(Watched(), CutMix(3, seed=3), max_epochs=3)
    assert losses
    for found, expected, _ in losses:
        assert found == pytest.approx(expected, rel=1e-4)
    assert len({kept for *_, kept in losses}) > 2


def test_bytes_are_pasted():
    x = torch.randint(256, (8, 1, 4, 4), dtype=torch.uint8)
    batches = []

    def step(module, batch):
        batches.append(batch[0])
        return module(batch[0] / 255).sum()

    fit(Spy(step), FixedCutMix(3), x, torch.arange(8) % 3)
    assert batches[0].dtype == torch.uint8
    assert torch.equal(batches[0], blended_by_hand(FixedCutMix(), x[:4])[0])


def test_masks_of_another_size_and_draws_for_each_image_of_pairs():
    x, y = data()
    with pytest.raises(ValueError, match="`target` must have the size of the images for CutMix"):
        fit(Spy(), CutMix(3), x, torch.zeros(12, 2, 2).long())
    with pytest.raises(ValueError, match="`draw` must be 'batch' for targets='pair', got 'image'"):
        fit(Spy(), CutMix(3, draw="image"), x, y)


def test_a_module_that_makes_masks_smaller_is_unchanged():
    """The mask is a target like any other: the module may do with it what it does."""
    x, _ = data()
    module = Spy(lambda module, batch: cross_entropy(module.segment(batch[0])[..., ::2, ::2], batch[1][..., ::2, ::2]))
    module.segment = nn.Conv2d(1, 2, 1)
    fit(module, CutMix(2), x, (x[:, 0] > 0).long())
