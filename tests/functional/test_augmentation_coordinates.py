"""Masks, boxes and points move with their images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as peer

from lightning_trainingkit.functional import (
    Augmentation,
    AugmentationDraws,
    augment,
    augment_boxes,
    augment_masks,
    augment_points,
    draw_augmentation,
)
from lightning_trainingkit.functional.augmentation_lens import check_lens, distort, undistort
from tests.functional.test_augmentation import seeded

MOVES = {
    "flips and crop": Augmentation(horizontal_flip=0.5, vertical_flip=0.5, translation=0.1, padding=4, crop=(48, 44)),
    "affine": Augmentation(rotation=30, scale=(0.8, 1.3), stretch=(0.8, 1.25), shear=(-10, 10, -10, 10)),
    "perspective": Augmentation(perspective=0.5, perspective_probability=1.0, horizontal_flip=0.5),
    "lens": Augmentation(lens_k1=(-0.12, 0.3), lens_k2=0.05, lens_k3=0.01, lens_p1=0.01, lens_p2=0.01),
    "all": Augmentation(
        horizontal_flip=0.5,
        rotation=20,
        scale=(0.8, 1.2),
        perspective=0.3,
        lens_k1=0.1,
        lens_p2=0.02,
        crop=44,
        padding=3,
    ),
}
LENS = st.tuples(*[st.floats(-0.08, 0.2)] * 3, *[st.floats(-0.03, 0.03)] * 2)


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_mask_box_and_point_stay_on_a_bright_object(moves):
    count, (left, top, right, bottom) = 24, (20, 22, 31, 28)
    images = torch.zeros(count, 1, 48, 50)
    images[:, :, top:bottom, left:right] = 1
    draws = draw_augmentation(moves, count, (48, 50), seeded())
    bright = augment(images, moves, draws)[:, 0]
    mask = augment_masks(images[:, 0].long(), moves, draws, fill=7)
    assert mask.dtype == torch.int64
    assert (mask[bright > 0.99] == 1).all()
    assert (mask[bright < 0.01] != 1).all()
    boxes = augment_boxes(torch.tensor([[[left, top, right, bottom]]]).double().expand(count, 1, 4), moves, draws)[:, 0]
    centre = torch.tensor([[(left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5]])
    points = augment_points(centre.expand(count, 1, 2), moves, draws)[:, 0]
    for image in range(count):
        rows, columns = torch.nonzero(bright[image] > 0.5, as_tuple=True)
        found = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        outwards = (found - boxes[image]) * torch.tensor([1, 1, -1, -1])
        assert outwards.min() > -0.6  # no bright pixel is outside
        assert outwards.max() < 2  # the box is close: half of a rounded pixel, and corners of a turned object
        weights = bright[image] / bright[image].sum()
        middle = [
            (weights.sum(0) * torch.arange(weights.shape[1])).sum(),
            (weights.sum(1) * torch.arange(len(weights))).sum(),
        ]
        assert (torch.stack(middle) - points[image]).abs().max() < 0.35


@given(st.sampled_from(["XYXY", "XYWH", "CXCYWH"]), st.integers(0, 2**20))
def test_boxes_are_moved_as_by_torchvision(form, seed):
    generator = seeded(seed)
    corners = torch.rand(5, 4, generator=generator, dtype=torch.float64) * 16
    corners[:, 2:] += corners[:, :2]
    boxes = tv_tensors.BoundingBoxes(
        peer.convert_bounding_box_format(
            corners, tv_tensors.BoundingBoxFormat.XYXY, tv_tensors.BoundingBoxFormat[form]
        ),
        format=form,
        canvas_size=(32, 40),
    )
    turn = Augmentation(rotation=40, scale=(0.7, 1.4), shear=20)
    draws = draw_augmentation(turn, 1, (32, 40), generator)
    found = augment_boxes(boxes.as_subclass(torch.Tensor)[None], turn, draws, form)[0]
    options = draws.angle.item(), [0, 0], draws.scale[0, 0].item(), draws.shear[0].tolist()
    assert (found - peer.affine(boxes, *options).as_subclass(torch.Tensor)).abs().max() < 1e-3
    flip = AugmentationDraws((32, 40), horizontal_flip=torch.tensor([True]))
    found = augment_boxes(boxes.as_subclass(torch.Tensor)[None], Augmentation(), flip, form)[0]
    assert (found - peer.horizontal_flip(boxes).as_subclass(torch.Tensor)).abs().max() < 1e-6


def test_a_box_holds_edges_that_a_lens_has_bent():
    images = torch.zeros(1, 1, 60, 60)
    images[:, :, 9:51, 9:51] = 1
    barrel = AugmentationDraws((60, 60), lens=torch.tensor([[0.5, 0, 0, 0, 0]]))
    rows, columns = torch.nonzero(augment(images, Augmentation(), barrel)[0, 0] > 0.5, as_tuple=True)
    found = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    box = augment_boxes(torch.tensor([[[9.0, 9, 51, 51]]]), Augmentation(), barrel)[0, 0]
    assert (found - box).abs().max() < 0.6  # the corners alone would cut 2 pixels


def test_a_box_outside_has_no_area_and_keeps_its_row():
    boxes = torch.tensor([[[0, 0, 4, 4], [20, 20, 24, 24], [6, 6, 10, 12]]])
    moved = augment_boxes(boxes, Augmentation(crop=8), AugmentationDraws((32, 32), crop=torch.tensor([[4, 4]])))
    assert moved.tolist() == [[[0, 0, 0, 0], [8, 8, 8, 8], [2, 2, 6, 8]]]


def test_integer_boxes_are_rounded_outwards():
    steps = AugmentationDraws((20, 20), angle=torch.tensor([10.0]))
    exact = augment_boxes(torch.tensor([[[5.0, 5, 12, 9]]]), Augmentation(), steps)
    whole = augment_boxes(torch.tensor([[[5, 5, 12, 9]]]), Augmentation(), steps)
    assert whole.dtype == torch.int64
    assert whole[0, 0, :2].tolist() == exact[0, 0, :2].floor().tolist()
    assert whole[0, 0, 2:].tolist() == exact[0, 0, 2:].ceil().tolist()


def test_points_are_flipped_as_by_torchvision_and_may_end_outside():
    points = tv_tensors.KeyPoints(torch.tensor([[0.0, 1.0], [5.5, 9.0]]), canvas_size=(10, 12))
    draws = AugmentationDraws((10, 12), horizontal_flip=torch.tensor([True]))
    found = augment_points(points.as_subclass(torch.Tensor)[None], Augmentation(), draws)[0]
    assert torch.allclose(found, peer.horizontal_flip(points).as_subclass(torch.Tensor))
    crop = AugmentationDraws((10, 12), crop=torch.tensor([[4, 4]]))
    skeleton = torch.zeros(1, 3, 2, 2)  # any number of dimensions
    assert augment_points(skeleton, Augmentation(crop=4), crop).unique().tolist() == [-4]


@given(LENS, st.integers(0, 2**20))
@settings(max_examples=25)
def test_undistort_is_the_inverse_of_distort(lens, seed):
    try:
        check_lens({name: (value, value) for name, value in zip(("k1", "k2", "k3", "p1", "p2"), lens, strict=True)})
    except ValueError:
        return
    x, y = torch.rand(2, 50, generator=seeded(seed), dtype=torch.float64) * 4 - 2  # the corners have radius 1
    coefficients = torch.tensor(lens, dtype=torch.float64)
    again = undistort(*distort(x, y, coefficients), coefficients)
    assert max((again[0] - x).abs().max(), (again[1] - y).abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_take_the_nearest_pixel_as_in_torchvision(dtype):
    masks = (torch.rand(2, 3, 15, 18, generator=seeded()) * 9).to(dtype)
    moves = Augmentation(rotation=(33, 33), scale=(1.2, 1.2))
    draws = draw_augmentation(moves, 2, (15, 18))
    found = augment_masks(masks, moves, draws)
    expected = peer.affine(tv_tensors.Mask(masks.float()), 33, [0, 0], 1.2, [0, 0]).to(dtype)
    assert found.dtype == dtype
    assert (found != expected).float().mean() < 0.01  # halfway between two pixels, float32 may decide otherwise
    large = torch.full((1, 4, 4), 2**31 + 1)  # an id that float32 can't hold
    assert (augment_masks(large, moves, draw_augmentation(moves, 1, (4, 4)))[0, 1:3, 1:3] == 2**31 + 1).all()


def test_erasing_and_colour_leave_masks_boxes_and_points_alone():
    steps = Augmentation(erasing=1.0, brightness=0.5)
    draws = draw_augmentation(steps, 2, (8, 8))
    mask, boxes, points = torch.ones(2, 8, 8), torch.ones(2, 1, 4), torch.ones(2, 1, 2)
    assert torch.equal(augment_masks(mask, steps, draws), mask)
    assert torch.equal(augment_boxes(boxes, steps, draws), boxes)
    assert torch.equal(augment_points(points, steps, draws), points)


def test_shapes_that_do_not_suit():
    steps = Augmentation(rotation=10)
    draws = draw_augmentation(steps, 2, (8, 8))
    with pytest.raises(ValueError, match="`masks` must hold as many images as the draws, 2, got 3"):
        augment_masks(torch.zeros(3, 8, 8), steps, draws)
    with pytest.raises(ValueError, match="`masks` must have 8 x 8 pixels"):
        augment_masks(torch.zeros(2, 8, 9), steps, draws)
    with pytest.raises(ValueError, match=r"`fill` must be an integer from 0 to 255 for masks of torch.uint8, got 300"):
        augment_masks(torch.zeros(2, 8, 8, dtype=torch.uint8), steps, draws, fill=300)
    with pytest.raises(ValueError, match=r"`boxes` must have the shape \(N, B, 4\), got \(2, 4\)"):
        augment_boxes(torch.zeros(2, 4), steps, draws)
    with pytest.raises(ValueError, match="`format` must be one of 'XYXY', 'XYWH', 'CXCYWH', got 'XYWHR'"):
        augment_boxes(torch.zeros(2, 1, 5), steps, draws, "XYWHR")
    with pytest.raises(ValueError, match=r"`points` must have the shape \(N, ..., 2\), got \(2, 3\)"):
        augment_points(torch.zeros(2, 3), steps, draws)
    with pytest.raises(TypeError, match="`points` must be a tensor"):
        augment_points([[0, 0]], steps, draws)
