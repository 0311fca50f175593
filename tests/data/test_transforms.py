"""Augmentations as transforms of torchvision's v2."""

import pickle

import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from lightning_trainingkit.data import Augment, ColourOffset, LensDistortion
from lightning_trainingkit.functional import Augmentation, augment, draw_augmentation

MOVES = Augmentation(horizontal_flip=0.5, rotation=20, crop=20, padding=2)


def sample(batch=()):
    """An image with a bright rectangle, and all that marks it."""
    image = torch.zeros(*batch, 3, 24, 24)
    image[..., 8:14, 6:16] = 1
    return {
        "image": tv_tensors.Image(image),
        "mask": tv_tensors.Mask(image[..., 0, :, :].to(torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes([[6, 8, 16, 14]], format="XYXY", canvas_size=(24, 24)),
        "points": tv_tensors.KeyPoints([[10.5, 10.5]], canvas_size=(24, 24)),
        "label": torch.tensor(3),
    }


def test_everything_in_a_sample_moves_with_its_image():
    torch.manual_seed(0)
    for _ in range(8):
        changed = Augment(MOVES, mask_fill=255)(sample())
        assert {name: type(value) for name, value in changed.items()} == {
            name: type(value) for name, value in sample().items()
        }
        bright, mask = changed["image"][0] > 0.99, changed["mask"]
        assert (mask[bright] == 1).all()
        assert mask.shape == changed["image"].shape[-2:] == changed["boxes"].canvas_size == (20, 20)
        assert set(mask.unique().tolist()) <= {0, 1, 255}
        rows, columns = torch.nonzero(bright, as_tuple=True)
        left, top, right, bottom = changed["boxes"][0].tolist()
        assert left <= columns.min()
        assert columns.max() < right
        assert top <= rows.min()
        assert rows.max() < bottom
        x, y = changed["points"][0].round().long().tolist()
        assert bright[y, x]
        assert changed["label"] == 3


def test_each_image_of_a_batch_has_its_own_draw():
    torch.manual_seed(0)
    whole = sample((6,))
    image, mask = Augment(MOVES)(whole["image"], whole["mask"])
    assert len({image[n].sum().item() for n in range(6)}) == 6
    for n in range(6):
        assert (mask[n][image[n, 0] > 0.99] == 1).all()
    with pytest.raises(ValueError, match="`sample` must hold one image beside BoundingBoxes, got a batch"):
        Augment(MOVES)(whole["image"], whole["boxes"])


def test_bytes_are_changed_like_floats_and_stay_bytes():
    steps = Augmentation(rotation=10, brightness=0.3, colour_offset=0.1)
    x = torch.randint(256, (3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(1)
    found = Augment(steps, fill=0.5)(x)
    torch.manual_seed(1)
    expected = augment(x[None] / 255, steps, draw_augmentation(steps, 1, (16, 16)), fill=0.5)[0]
    assert found.dtype == torch.uint8
    assert (found - expected * 255).abs().max() < 0.51
    flipped = Augment(Augmentation(horizontal_flip=1.0))(x)
    assert torch.equal(flipped, x.flip(-1))


def test_a_seed_of_torch_fixes_the_draws_and_the_input_stays():
    x = torch.rand(3, 16, 16)
    given, results = x.clone(), []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(v2.Compose([Augment(MOVES), ColourOffset(), LensDistortion(0.2)])(x))
    assert torch.equal(*results)
    assert torch.equal(x, given)


def test_the_colour_offset_adds_one_colour():
    torch.manual_seed(0)
    offset = ColourOffset(std=0.5)(torch.full((4, 3, 8, 8), 0.5)) - 0.5
    assert (offset - offset[:, :, :1, :1]).abs().max() < 1e-6  # the same for all pixels
    assert offset[:, 0, 0, 0].unique().numel() == 4
    grey = ColourOffset(eigenvalues=(0.5, 0, 0), eigenvectors=((1, 0, 0), (1, 0, 0), (1, 0, 0)))
    offset = grey(torch.full((3, 8, 8), 0.5)) - 0.5
    assert (offset - offset[0]).abs().max() < 1e-6  # the same for all colours


def test_a_lens_bends_straight_lines_outwards_if_its_coefficient_is_positive():
    x = torch.arange(41.0).expand(1, 41, 41) / 40  # the value of a pixel tells its column

    def columns(k1):
        bent = LensDistortion((k1, k1), padding_mode="reflect")(x)[0] * 40
        return bent[20, 6].item(), bent[6, 6].item()  # in the middle and near a corner

    (middle, corner), (middle_in, corner_in) = columns(0.3), columns(-0.2)
    assert corner < middle < 6  # a barrel: near the corner, columns from further out are shown
    assert corner_in > middle_in > 6  # a pincushion


def test_a_mask_without_objects():
    x = tv_tensors.Image(torch.rand(3, 24, 24))
    _, mask = Augment(MOVES)(x, tv_tensors.Mask(torch.zeros(0, 24, 24, dtype=torch.bool)))
    assert mask.shape == (0, 20, 20)


def test_a_transform_pickles_and_shows_its_ranges():
    transform = pickle.loads(pickle.dumps(Augment(MOVES, fill=0.5)))
    assert repr(transform) == f"Augment({MOVES!r})"
    assert transform.fill == 0.5


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([Image.new("RGB", (24, 24))], TypeError, r"must get tensors, got Image. Put v2.ToImage\(\) before it"),
        ([tv_tensors.Video(torch.zeros(2, 3, 24, 24))], TypeError, "must get tensors, got Video"),
        ([sample()["image"], tv_tensors.Mask(torch.zeros(8, 8))], ValueError, "images and masks of one size"),
        ([torch.zeros(3, 24, 24, dtype=torch.int64)], TypeError, "must be floating point, got torch.int64"),
        ([torch.full((3, 24, 24), 2.0)], ValueError, "must have values from 0 to 1"),
        (["a label"], ValueError, "`sample` must have images and masks of one size, got none"),
    ],
)
def test_samples_that_do_not_suit(inputs, error, message):
    with pytest.raises(error, match=message):
        Augment(Augmentation(brightness=0.2, rotation=5))(*inputs)


def test_bad_arguments():
    with pytest.raises(TypeError, match="`augmentation` must be an Augmentation, got str"):
        Augment("cifar")
    with pytest.raises(ValueError, match="`std` must be above 0, got 0"):
        ColourOffset(0)
    with pytest.raises(ValueError, match="`lens` must hold ranges that never fold"):
        LensDistortion(k1=0.9)
    with pytest.raises(ValueError, match="`fill` must be at least 0 and at most 1, got 255"):
        Augment(MOVES, fill=255)
