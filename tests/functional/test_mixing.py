import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from lightning_trainingkit.functional import (
    beta_weights,
    blend_targets,
    cutmix,
    cutmix_boxes,
    cutout,
    kept_share,
    mixup,
    random_boxes,
    random_partners,
)

counts, sides, seeds = st.integers(1, 6), st.integers(1, 9), st.integers(0, 999)


def made(count, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, height, width, generator=generator), generator


@given(count=counts, height=sides, width=sides, seed=seeds, each=st.booleans())
def test_mixup_blends_pixel_by_pixel(count, height, width, seed, each):
    images, generator = made(count, height, width, seed)
    partner, weights = random_partners(count, generator), beta_weights(count if each else 1, 0.7, generator)
    found = mixup(images, partner, weights if each else float(weights))
    for i in range(count):
        w = float(weights[i if each else 0])
        expected = w * images[i].double() + (1 - w) * images[int(partner[i])].double()
        torch.testing.assert_close(found[i].double(), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=50)
@given(count=counts, height=sides, width=sides, seed=seeds, each=st.booleans())
def test_cutmix_and_cutout_change_the_pixels_of_the_box_alone(count, height, width, seed, each):
    images, generator = made(count, height, width, seed)
    partner = random_partners(count, generator)
    boxes = cutmix_boxes(beta_weights(count if each else 1, 1.0, generator), (height, width), generator)
    pasted, filled = images.clone(), images.clone()
    outside = np.zeros(len(boxes))
    for i in range(count):
        x1, y1, x2, y2 = boxes[i if each else 0].tolist()
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height
        for y in range(height):
            for x in range(width):
                if x1 <= x < x2 and y1 <= y < y2:
                    pasted[i, :, y, x] = images[int(partner[i]), :, y, x]
                    filled[i, :, y, x] = 0.25
        outside[i if each else 0] = 1 - (x2 - x1) * (y2 - y1) / (height * width)
    assert torch.equal(cutmix(images, partner, boxes), pasted)
    assert torch.equal(cutout(images, boxes, 0.25), filled)
    assert torch.equal(cutout(images, boxes, torch.tensor(0.25)), filled)
    assert kept_share(boxes, (height, width)).tolist() == pytest.approx(outside.tolist())
    masks = images[:, 0]  # (N, H, W)
    assert torch.equal(cutmix(masks, partner, boxes), pasted[:, 0])


@given(count=st.integers(2, 40), seed=seeds)
def test_each_image_is_the_partner_of_another(count, seed):
    partner = random_partners(count, torch.Generator().manual_seed(seed))
    assert sorted(partner.tolist()) == list(range(count))
    assert all(partner[i] != i for i in range(count))


def test_all_partners_are_equally_likely():
    generator = torch.Generator().manual_seed(0)
    firsts = torch.stack([random_partners(5, generator)[0] for _ in range(2000)])
    assert (torch.bincount(firsts, minlength=5) / 2000).tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25], abs=0.04)


def test_the_kernels_equal_torchvision_on_its_own_draws():
    images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 2, 1, 1, 0])
    partner = torch.arange(5).roll(1)
    x = v2.MixUp(num_classes=3).transform(images, {"lam": 0.3, "labels": labels, "batch_size": 5})
    torch.testing.assert_close(mixup(images, partner, 0.3), x)
    box, share = (2, 1, 7, 4), 1 - 5 * 3 / 64
    theirs = v2.CutMix(num_classes=3)
    params = {"box": box, "lam_adjusted": share, "labels": labels, "batch_size": 5}
    x, y = (theirs.transform(each, params) for each in (images, labels))
    boxes = torch.tensor([box])
    assert torch.equal(cutmix(images, partner, boxes), x)
    torch.testing.assert_close(blend_targets(labels, partner, float(kept_share(boxes, (8, 8))), 3), y)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 8.0])
def test_weights_have_the_moments_of_the_beta_distribution(alpha):
    weights = beta_weights(20_000, alpha, torch.Generator().manual_seed(0))
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(weights.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert torch.equal(weights, beta_weights(20_000, alpha, torch.Generator().manual_seed(0)))


def test_a_square_of_odd_side_keeps_its_side_and_hangs_over_the_border():
    boxes = random_boxes(torch.tensor([[5, 5]]).expand(4000, 2), (9, 9), torch.Generator().manual_seed(0))
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    assert widths.max() == heights.max() == 5
    assert widths.min() == heights.min() == 3
    assert (widths == 5).double().mean() == pytest.approx(5 / 9, abs=0.03)


def test_weights_per_image_blend_targets_per_image():
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = blend_targets(targets, torch.tensor([1, 0]), torch.tensor([0.25, 1.0]))
    assert found.tolist() == [[0.25, 0.75], [0.0, 1.0]]


def test_integers_have_no_blend():
    with pytest.raises(TypeError, match=r"`images` must be floating point, got torch\.uint8"):
        mixup(torch.zeros(2, 1, dtype=torch.uint8), torch.tensor([1, 0]), 0.5)
    with pytest.raises(TypeError, match=r"num_classes=None\. Give the number of classes"):
        blend_targets(torch.tensor([0, 1]), torch.tensor([1, 0]), 0.5)


@pytest.mark.parametrize("count", [1, 8])
def test_the_host_never_waits_for_the_device(count):
    """Tensors on the device "meta" have no values: reading one raises."""
    images, labels = torch.empty(8, 3, 8, 8, device="meta"), torch.empty(8, dtype=torch.long, device="meta")
    partner, weights = random_partners(8), beta_weights(count, 1.0)
    weight = float(weights) if count == 1 else weights
    boxes = cutmix_boxes(weights, (8, 8))
    blends = [mixup(images, partner, weight), cutmix(images, partner, boxes), cutout(images, boxes)]
    assert all(each.shape == images.shape for each in blends)
    assert blend_targets(labels, partner, weight, num_classes=3).device.type == "meta"
