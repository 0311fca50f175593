import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit.data import policy_transform
from lightning_trainingkit.data.alternating_flip import alternating_flip

NAMES = ["none", "cifar", "geometric", "imagenet_resnet", "autoaugment", "randaugment", "trivialaugment"]


def picture(size=(3, 30, 40), seed=0):
    return torch.randint(256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_keeps_the_type_and_draws_from_torchs_generator(name):
    transform, image = policy_transform(name, 30), picture((3, 30, 30))
    torch.manual_seed(0)
    first = [transform(image) for _ in range(3)]
    torch.manual_seed(0)
    assert all(torch.equal(transform(image), one) for one in first)
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in first)
    as_floats = transform(F.to_dtype(image, torch.float32, scale=True))
    assert as_floats.dtype == torch.float32
    assert 0 <= as_floats.min() <= as_floats.max() <= 1


@pytest.mark.parametrize(
    ("name", "peer"),
    [("autoaugment", v2.AutoAugment), ("randaugment", v2.RandAugment), ("trivialaugment", v2.TrivialAugmentWide)],
)
def test_the_automatic_policies_are_torchvisions(name, peer):
    image = picture()
    for seed in range(5):
        torch.manual_seed(seed)
        expected = peer()(image)
        torch.manual_seed(seed)
        assert torch.equal(policy_transform(name, 30)(image), expected)


def test_resnets_policy_cuts_from_an_image_of_random_size():
    """A crop of 224 shows a share of 224 / 480 to 224 / 256 of the shorter side: the slope of a ramp tells it."""
    ramp = torch.linspace(0, 1, 400).expand(3, 300, 400)
    torch.manual_seed(0)
    shares = []
    for _ in range(200):
        flat = policy_transform("imagenet_resnet", 56)(ramp)
        assert flat.shape == (3, 56, 56)
        grey = flat.mean(dim=0)
        rise = (grey[:, -1] - grey[:, 0]).abs().mean() / 55  # jitter of the contrast is left in
        shares.append(rise.item())
    # a pixel of the crop is 300 / L pixels of the ramp, L from 64 to 120; contrast 0.6 to 1.4, brightness too
    assert min(shares) < 300 / 110 / 399 < 300 / 70 / 399 < max(shares)


@pytest.mark.parametrize("name", NAMES)
def test_images_of_pillow_become_bytes(name):
    image = picture()
    as_tensor, as_pillow = (policy_transform(name, 30) for _ in range(2))
    torch.manual_seed(0)
    expected = as_tensor(image)
    torch.manual_seed(0)
    found = as_pillow(F.to_pil_image(image))
    assert torch.equal(found, expected)


def test_floats_that_a_resize_rounds_above_1_are_taken():
    torch.manual_seed(0)
    transform = policy_transform("imagenet_resnet", 56)
    assert all(transform(torch.ones(3, 70, 90)).max() <= 1 for _ in range(50))


def test_masks_are_cut_with_their_image():
    image = torch.zeros(3, 300, 400)
    image[:, 100:200, 150:250] = 1
    torch.manual_seed(0)
    for _ in range(10):
        seen, mask = policy_transform("imagenet_resnet", 56)(image, tv_tensors.Mask(image[0] > 0.5))
        sides = seen.mean(dim=0) > seen.mean() if mask.any() and not mask.all() else mask
        assert (sides == mask).float().mean() > 0.95


def test_a_small_image_is_enlarged_for_resnets_crop():
    assert policy_transform("imagenet_resnet", 32)(picture((3, 8, 12))).shape == (3, 32, 32)


def test_alternating_flip_is_no_transform_of_an_image():
    with pytest.raises(ValueError, match=r"`policy` must be a transform of an image alone, got 'alternating_flip'"):
        policy_transform("alternating_flip", 32)


def test_each_image_is_flipped_in_every_second_epoch_and_at_random_at_first():
    images = torch.rand(400, 1, 2, 3)
    indices = torch.arange(1000, 1400).tolist()
    epochs = [alternating_flip(images, indices, epoch, seed=0) for epoch in range(4)]
    as_it_is = [(one == images).flatten(1).all(dim=1) for one in epochs]
    mirrored = [(one == images.flip(-1)).flatten(1).all(dim=1) for one in epochs]
    assert all(torch.equal(a, ~b) for a, b in zip(as_it_is, mirrored, strict=True))
    assert torch.equal(as_it_is[0], as_it_is[2])
    assert torch.equal(as_it_is[0], mirrored[1])
    assert torch.equal(as_it_is[1], as_it_is[3])
    assert 150 < as_it_is[0].sum() < 250
    other_seed = alternating_flip(images, indices, 0, seed=1)
    assert 100 < (other_seed == epochs[0]).flatten(1).all(dim=1).sum() < 300


def test_the_flip_of_an_image_does_not_depend_on_its_batch():
    images = torch.rand(30, 1, 2, 3)
    whole = alternating_flip(images, range(30), 3, seed=5)
    for rank in (0, 1):
        assert torch.equal(alternating_flip(images[rank::2], range(rank, 30, 2), 3, seed=5), whole[rank::2])
