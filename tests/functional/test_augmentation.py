"""Ranges of an augmentation, and draws from them."""

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_trainingkit.functional import Augmentation, draw_augmentation
from lightning_trainingkit.functional.augmentation_maps import lens_to_image

EVERY = Augmentation(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=15,
    translation=0.1,
    scale=(0.8, 1.2),
    stretch=(0.8, 1.25),
    shear=(-5, 5, -3, 3),
    perspective=0.3,
    lens_k1=0.05,
    lens_p1=0.01,
    crop=(20, 24),
    padding=2,
    erasing=0.5,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    colour_offset=0.1,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_number_stands_for_a_symmetric_range_and_a_copy_has_the_same_ranges():
    augmentation = Augmentation(rotation=15, brightness=1.5, translation=0.2, shear=5, crop=28, scale=[0.5, 2])
    assert augmentation.rotation == (-15, 15)
    assert augmentation.brightness == (0, 2.5)
    assert augmentation.translation == (0.2, 0.2)
    assert augmentation.shear == (-5, 5, 0, 0)
    assert augmentation.crop == (28, 28)
    assert augmentation.scale == (0.5, 2)
    assert dataclasses.replace(augmentation, hue=0.1) == Augmentation(
        rotation=15, brightness=1.5, translation=0.2, shear=5, crop=28, scale=(0.5, 2), hue=(-0.1, 0.1)
    )
    assert len({augmentation, dataclasses.replace(augmentation)}) == 1


def test_plain_values_describe_an_augmentation():
    """As a YAML file gives them: lists, no tuples."""
    listed = {name: _lists(value) for name, value in dataclasses.asdict(EVERY).items()}
    assert Augmentation(**listed) == EVERY
    assert eval(repr(EVERY)) == EVERY
    assert repr(Augmentation()) == "Augmentation()"


def _lists(value):
    return [_lists(each) for each in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"horizontal_flip": 1.5}, "`horizontal_flip` must be at least 0 and at most 1, got 1.5"),
        ({"erasing": -0.1}, "`erasing` must be at least 0 and at most 1"),
        ({"rotation": (10, -10)}, r"`rotation` must be a range \(low, high\) with low <= high, got \(10, -10\). Swap"),
        ({"rotation": (1, 2, 3)}, "`rotation` must be a range of two numbers"),
        ({"rotation": "15"}, "`rotation` must be a range"),
        ({"rotation": True}, "`rotation` must be a number"),
        ({"translation": 1.5}, "`translation` must be at least 0 and at most 1"),
        ({"translation": (0.1, 0.1, 0.1)}, "`translation` must be one share or the shares"),
        ({"scale": (0, 1)}, "`scale` must be above 0, got 0"),
        ({"scale": 1.2}, "`scale` must be a range"),
        ({"stretch": (2, 1)}, "`stretch` must be a range"),
        ({"shear": 90}, "`shear` must be at least 0 and below 90"),
        ({"shear": (-5, 5, 5)}, "`shear` must be a range of two numbers"),
        ({"perspective": 0.9}, "`perspective` must be at least 0 and at most 0.6, got 0.9"),
        ({"lens_k1": (-0.5, 0)}, "`lens` must hold ranges that never fold an image"),
        ({"lens_p1": 0.2}, "`lens` must hold ranges that never fold"),
        ({"crop": 0}, "`crop` must be at least 1"),
        ({"crop": (1, 2, 3)}, "`crop` must be a size"),
        ({"padding": -1}, "`padding` must be at least 0"),
        ({"padding_mode": "zeros"}, "`padding_mode` must be one of 'constant', 'reflect', got 'zeros'"),
        ({"erasing_area": (0.5, 1.0)}, "`erasing_area` must be above 0 and below 1"),
        ({"brightness": -0.5}, "`brightness` must be at least 0"),
        ({"contrast": (-1, 1)}, "`contrast` must be at least 0"),
        ({"hue": 0.6}, "`hue` must be at least 0 and at most 0.5"),
        ({"hue": (-0.6, 0)}, "`hue` must be at least -0.5 and at most 0.5"),
        ({"colour_offset": float("nan")}, "`colour_offset` must be finite"),
        ({"colour_eigenvalues": (1, 2)}, "`colour_eigenvalues` must hold three numbers"),
        ({"colour_eigenvectors": (1, 2, 3)}, "`colour_eigenvectors` must hold three numbers"),
    ],
)
def test_a_bad_range(ranges, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Augmentation(**ranges)


def test_a_crop_larger_than_the_padded_image():
    with pytest.raises(ValueError, match="`crop` must fit into an image with its padding, 36 x 36 pixels, got 40 x 30"):
        draw_augmentation(Augmentation(crop=(40, 30), padding=2), 4, (32, 32))


def test_draws_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first, second = (draw_augmentation(EVERY, 5, (24, 28), seeded()).steps for _ in range(2))
    other = draw_augmentation(EVERY, 5, (24, 28), seeded(1)).steps
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first) == len(dataclasses.fields(draw_augmentation(EVERY, 5, (24, 28)))) - 1  # all steps are on
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)


def test_draws_fill_their_ranges():
    draws = draw_augmentation(EVERY, 4000, (24, 28), seeded())

    def extent(values):
        return [round(bound.item(), 2) for bound in torch.aminmax(values)]

    assert draws.horizontal_flip.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.aminmax(draws.angle)[0] < -14.9
    assert 14.9 < torch.aminmax(draws.angle)[1] <= 15
    assert [draws.translation[:, axis].abs().max().item() for axis in (0, 1)] == [3, 2]  # 2.8 and 2.4 pixels
    assert draws.scale.prod(1).sqrt().mean().item() == pytest.approx(1.0, abs=0.01)  # a stretch keeps the area
    stretch = draws.scale[:, 0] / draws.scale[:, 1]
    assert extent(stretch) == [0.8, 1.25]
    assert stretch.log().mean().item() == pytest.approx(0, abs=0.01)
    assert draws.shear.abs().amax(0).round().tolist() == [5, 3]
    assert draws.crop.amin(0).tolist() == [-2, -2]
    assert draws.crop.amax(0).tolist() == [28 + 2 - 24, 24 + 2 - 20]
    assert extent(draws.brightness) == extent(draws.contrast) == extent(draws.saturation) == [0.6, 1.4]
    assert extent(draws.hue) == [-0.1, 0.1]
    assert draws.colour_offset.std().item() == pytest.approx(0.1, rel=0.03)
    assert draws.lens[:, 1].abs().max() == 0  # k2 is off


def test_erased_rectangles_are_those_of_torchvision():
    augmentation = Augmentation(erasing=0.6)
    left, top, width, height = draw_augmentation(augmentation, 4000, (40, 32), seeded()).erasing.unbind(1)
    erased = width * height > 0
    assert erased.float().mean().item() == pytest.approx(0.6, abs=0.03)
    assert (left + width <= 32).all()
    assert (top + height <= 40).all()
    area, aspect = (width * height)[erased] / (32 * 40), (height / width)[erased]
    assert area.min() > 0.015
    assert area.max() < 0.35
    assert area.mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.01)
    assert aspect.log().mean().item() == pytest.approx(math.log(0.3 * 3.3) / 2, abs=0.05)
    assert {left[erased].min().item(), top[erased].min().item()} == {0}


@example(4, 4, 0)  # one pixel is a third of the side
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 1000))
def test_no_perspective_folds_an_image(height, width, seed):
    steps = Augmentation(perspective=0.6, perspective_probability=1.0)
    draws = draw_augmentation(steps, 200, (height, width), seeded(seed))
    rows = lens_to_image(draws)[:, 2]
    assert rows.isfinite().all()
    moved = torch.cat((draws.corners - torch.tensor((width / 2, height / 2)), torch.ones(200, 4, 1)), -1)
    assert ((rows[:, None] * moved).sum(-1) > 0).all()  # the moved corners are on this side of the horizon


def test_a_perspective_needs_two_pixels():
    with pytest.raises(ValueError, match="`size` must be at least 2 x 2 pixels for a perspective, got 1 x 8"):
        draw_augmentation(Augmentation(perspective=0.5), 1, (1, 8))
