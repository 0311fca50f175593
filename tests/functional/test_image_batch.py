"""Where the images and the target of a batch are found, and what a changed batch looks like."""

from collections import UserDict, namedtuple

import pytest
import torch

from lightning_trainingkit.functional.image_batch import find_images

IMAGES, BYTES = torch.rand(4, 3, 8, 6), torch.zeros(4, 3, 8, 6, dtype=torch.uint8)
CLASSES, SOFT, MASK = torch.arange(4), torch.rand(4, 10), torch.zeros(4, 8, 6, dtype=torch.long)
Pair = namedtuple("Pair", ["image", "label"])
Triple = namedtuple("Triple", ["index", "picture", "label"])


@pytest.mark.parametrize(
    ("batch", "image", "target"),
    [
        ([IMAGES, CLASSES], 0, 1),
        ((IMAGES, SOFT), 0, 1),
        ((BYTES, MASK), 0, 1),
        ((IMAGES, IMAGES[:, :1]), 0, 1),  # a mask with a channel
        ([CLASSES, IMAGES], 1, 0),
        ((IMAGES, [{"boxes": torch.zeros(1, 4)}] * 4), 0, 1),
        ([IMAGES], 0, None),
        (IMAGES, None, None),
        ((IMAGES, CLASSES, CLASSES), 0, None),
        (Pair(IMAGES, CLASSES), 0, 1),
        (Triple(CLASSES, IMAGES, CLASSES), 1, 2),
        ({"image": IMAGES, "label": CLASSES}, "image", "label"),
        ({"pixel_values": IMAGES, "labels": CLASSES, "ids": CLASSES}, "pixel_values", "labels"),
        ({"photo": IMAGES, "kind": CLASSES}, "photo", None),
        ({"x": IMAGES, "y": MASK, "other": IMAGES}, "x", "y"),
        (UserDict(image=IMAGES, label=CLASSES), "image", "label"),
    ],
)
def test_usual_batches(batch, image, target):
    found = find_images(batch)
    assert (found.image, found.target) == (image, target)


@pytest.mark.parametrize(
    ("batch", "names", "image", "target"),
    [
        ((CLASSES, IMAGES, IMAGES), {"image": 2, "target": 0}, 2, 0),
        ((CLASSES, IMAGES, CLASSES), {"target": -1}, 1, 2),
        ((IMAGES, IMAGES), {"target": 1}, 0, 1),
        (Triple(CLASSES, IMAGES, CLASSES), {"image": "picture", "target": "index"}, 1, 0),
        ({"left": IMAGES, "right": IMAGES, "kind": CLASSES}, {"image": "left", "target": "kind"}, "left", "kind"),
    ],
)
def test_named_entries(batch, names, image, target):
    found = find_images(batch, **names)
    assert (found.image, found.target) == (image, target)


@pytest.mark.parametrize(
    "batch",
    [
        [IMAGES, CLASSES],
        (IMAGES, CLASSES),
        Pair(IMAGES, CLASSES),
        {"image": IMAGES, "label": CLASSES},
        UserDict(image=IMAGES, label=CLASSES),
    ],
)
def test_a_changed_batch_is_a_new_one_of_the_same_type(batch):
    new = find_images(batch).replaced(IMAGES + 1, SOFT)
    assert type(new.whole) is type(batch)
    again, before = find_images(new.whole), find_images(batch)
    assert torch.equal(again.images, IMAGES + 1)
    assert again.labels is new.labels is SOFT
    assert before.images is IMAGES
    assert before.labels is CLASSES


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (
            {"left": IMAGES, "right": IMAGES},
            {},
            "`image` must name .*'right': float32 .4, 3, 8, 6.. Write image='left'",
        ),
        ((IMAGES, IMAGES, CLASSES), {}, "`image` must name"),
        ((IMAGES, IMAGES), {}, "`image` must name"),
        ({"image": IMAGES, "kind": CLASSES}, {"labels": True}, "`target` must name .*Write target='kind'"),
        ({"image": IMAGES, "mask": MASK, "label": CLASSES}, {"labels": True}, "`target` must name"),
        (
            (IMAGES, CLASSES),
            {"image": "photo"},
            "`image` must name an entry of the batch, got 'photo'. It has 0: float32",
        ),
        ((IMAGES, CLASSES), {"target": 2}, "`target` must name an entry"),
        ((IMAGES, CLASSES), {"image": 1, "target": 1}, "`target` must differ"),
        ((SOFT, CLASSES), {}, "`image` must be a tensor .N, C, H, W., got float32 .4, 10."),
        (([IMAGES[0]] * 4, CLASSES), {}, "`image` must be a tensor .N, C, H, W., got list"),
        ([IMAGES], {"labels": True}, "`batch` must hold a target|`target` must name"),
        (IMAGES, {"labels": True}, "`batch` must hold a target"),
        (IMAGES, {"image": 0}, "`image` must be None for a batch of one tensor"),
        ({}, {}, "got None for nothing"),
    ],
)
def test_batches_that_leave_a_question(batch, options, message):
    with pytest.raises(ValueError, match=message):
        find_images(batch, **options)


def test_an_object_that_is_no_batch():
    with pytest.raises(TypeError, match="`batch` must be a tensor, a list, a tuple or a dict, got object"):
        find_images(object())


def test_rows_without_pixels_may_be_blended():
    assert find_images((SOFT, CLASSES), pixels=False).images is SOFT
