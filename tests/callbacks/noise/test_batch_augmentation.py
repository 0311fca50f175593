from contextlib import nullcontext

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from lightning_trainingkit import BatchAugmentation, Cutout, DigitsDataModule
from lightning_trainingkit.functional import Augmentation
from lightning_trainingkit.functional.image_batch import find_images
from tests.toy import ToyModule, toy_trainer

FLIP = {"horizontal_flip": 1.0}
PIXELS = torch.rand(6, 3, 8, 10, generator=torch.Generator().manual_seed(0))


class Spy(ToyModule):
    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return sum(weight.sum() for weight in self.parameters())

    def validation_step(self, batch, batch_idx):
        pass


class Batches(torch.utils.data.Dataset):
    """Batches as they are."""

    def __init__(self, *batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def seen(callbacks, *batches, **options):
    """What the training step got."""
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    module = Spy()
    loader = DataLoader(Batches(*batches), batch_size=None)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, **options}
    toy_trainer(*callbacks, **options).fit(module, loader, DataLoader(TensorDataset(torch.zeros(1, 1, 4, 4)), 1))
    return module.seen


def test_each_image_is_changed_in_its_own_way():
    images = PIXELS[:1].expand(64, -1, -1, -1)
    ((changed, targets),) = seen(BatchAugmentation({"horizontal_flip": 0.5}, seed=0), (images, torch.arange(64)))
    flipped = (changed != images).flatten(1).any(1)
    assert 16 < flipped.sum() < 48
    assert torch.equal(changed[flipped], images[flipped].flip(-1))
    assert torch.equal(targets, torch.arange(64))


@pytest.mark.parametrize("policy", ["cifar", Augmentation(padding=4, horizontal_flip=0.5), {"padding": 4}])
def test_policies_as_names_objects_and_dicts(policy):
    ((changed, _),) = seen(BatchAugmentation(policy), [PIXELS, torch.arange(6)])
    assert changed.shape == PIXELS.shape
    assert not torch.equal(changed, PIXELS)


def test_normalised_images_are_filled_with_black():
    mean, std = [0.5, 0.4, 0.3], [0.25, 0.5, 1.0]
    images = transforms.normalize(PIXELS, mean, std)
    policy = {"translation": 0.5, "rotation": 30}
    ((changed, _),) = seen(BatchAugmentation(policy, mean=mean, std=std, seed=0), [images, torch.arange(6)])
    ((plain, _),) = seen(BatchAugmentation(policy, seed=0), [PIXELS, torch.arange(6)])
    assert (plain == 0).any()
    assert torch.allclose(changed, transforms.normalize(plain, mean, std), atol=1e-5)


def test_colour_of_normalised_images_is_changed_before_the_normalisation():
    mean, std = [0.5, 0.4, 0.3], [0.25, 0.5, 1.0]
    images = transforms.normalize(PIXELS, mean, std)
    policy = {"brightness": 0.4, "saturation": 0.4, "rotation": 10}
    ((changed, _),) = seen(BatchAugmentation(policy, mean=mean, std=std, seed=0), [images, torch.arange(6)])
    ((plain, _),) = seen(BatchAugmentation(policy, seed=0), [PIXELS, torch.arange(6)])
    assert torch.allclose(changed, transforms.normalize(plain, mean, std), atol=1e-5)


@pytest.mark.parametrize("preprocess", ["none", "channel", "mean_image", "zca"])
def test_the_normalisation_of_the_kits_data_module_is_known(preprocess):
    policy = {"brightness": (0.5, 0.5), "horizontal_flip": 1.0}
    data, module = DigitsDataModule(batch_size=64, preprocess=preprocess), Spy()
    toy_trainer(BatchAugmentation(policy), max_epochs=1, limit_train_batches=1).fit(module, data)
    undo = getattr(data.preprocessing, "inverse", lambda images: images)
    images = undo(module.seen[0][0])
    assert images.max() == pytest.approx(0.5, abs=1e-3)
    assert images.min() == pytest.approx(0.0, abs=1e-3)


def test_bfloat16_and_channels_last_stay():
    images = PIXELS.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    ((changed, _),) = seen(BatchAugmentation({"rotation": 10, "hue": 0.1}), [images, torch.arange(6)])
    assert changed.dtype == torch.bfloat16
    assert changed.is_contiguous(memory_format=torch.channels_last)


def test_mixed_precision_leaves_the_values_exact():
    policy = {"rotation": 10, "brightness": 0.4, "saturation": 0.4}
    plain, mixed = (
        seen(BatchAugmentation(policy, seed=0), [PIXELS, torch.arange(6)], precision=precision)[0][0]
        for precision in ("32-true", "bf16-mixed")
    )
    assert torch.equal(plain, mixed)


@pytest.mark.parametrize("channel", [False, True])
def test_a_mask_moves_with_its_image(channel):
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 4:9, 6:12] = 1
    mask = images.long() if channel else images[:, 0].long()
    policy = {"padding": 3, "rotation": 20, "horizontal_flip": 0.5}
    ((changed, moved),) = seen(BatchAugmentation(policy, seed=0), (images, mask))
    assert moved.shape == mask.shape
    assert moved.dtype == mask.dtype
    apart = (changed.squeeze(1) > 0.5) != moved.reshape(32, 16, 16).bool()
    assert apart.float().mean() < 0.02
    assert not torch.equal(mask, moved)


def test_the_mask_of_a_crop_and_its_fill():
    mask = torch.ones(6, 8, 10).long()
    callback = BatchAugmentation({"padding": 4, "crop": 6}, mask_fill=255)
    ((images, moved),) = seen(callback, (PIXELS, mask))
    assert images.shape[-2:] == moved.shape[-2:] == (6, 6)
    assert set(moved.unique().tolist()) == {1, 255}


def test_a_mask_beside_labels_moves_too():
    batch = {"image": PIXELS, "mask": torch.arange(10).expand(6, 8, 10), "label": torch.arange(6), "path": ["a"] * 6}
    (changed,) = seen(BatchAugmentation(FLIP), batch)
    assert torch.equal(changed["mask"], batch["mask"].flip(-1))
    assert torch.equal(changed["image"], PIXELS.flip(-1))
    assert changed["label"] is batch["label"]
    assert changed["path"] == batch["path"]


def test_boxes_keypoints_and_masks_of_torchvision_move_with_their_image():
    size = {"canvas_size": (8, 10)}
    targets = [
        {
            "boxes": tv_tensors.BoundingBoxes([[index, 1, index + 3, 5]], format="XYXY", **size),
            "points": tv_tensors.KeyPoints([[index, 2]], **size),
            "masks": tv_tensors.Mask(torch.arange(10).expand(1, 8, 10)),
            "labels": torch.tensor([index]),
        }
        for index in range(6)
    ]
    ((images, changed),) = seen(BatchAugmentation({"horizontal_flip": 0.5}, seed=0), (PIXELS, targets))
    flipped = (images != PIXELS).flatten(1).any(1).tolist()
    assert set(flipped) == {True, False}
    for new, old, flips in zip(changed, targets, flipped, strict=True):
        for key in ("boxes", "points", "masks"):
            expected = transforms.horizontal_flip(old[key]) if flips else old[key]
            assert type(new[key]) is type(expected)
            assert torch.equal(new[key], expected)
        assert new["labels"] is old["labels"]


def test_the_canvas_of_boxes_is_the_crop():
    boxes = [tv_tensors.BoundingBoxes([[1.0, 1, 7, 7]], format="CXCYWH", canvas_size=(8, 10)) for _ in range(6)]
    ((_, changed),) = seen(BatchAugmentation({"crop": 4}), (PIXELS, boxes))
    assert all(each.canvas_size == (4, 4) and each.format.name == "CXCYWH" for each in changed)


@pytest.mark.parametrize(
    "other",
    [
        {"boxes": torch.zeros(6, 2, 4)},
        {"boxes": torch.zeros(6, 4)},
        {"second": torch.zeros(6, 3, 8, 10)},
        {"target": torch.zeros(6, 4, 5).long()},
        {"targets": [{"boxes": torch.zeros(1, 4)}] * 6},
        {"targets": [{"image": tv_tensors.Image(torch.zeros(3, 8, 10))}] * 6},
    ],
)
def test_annotations_that_cannot_move(other):
    with pytest.raises(ValueError, match="`batch` must hold annotations that can move with the images"):
        seen(BatchAugmentation(FLIP), {"image": PIXELS, **other})
    seen(BatchAugmentation({"brightness": 0.1}), {"image": PIXELS, **other})  # nothing moves


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (2 * PIXELS - 1, {}, r"`images` must be from 0 to 1 .*got values from -1 to .*mean and std"),
        (255 * PIXELS, {}, r"`images` must be from 0 to 1 .*divided by 255"),
        (
            torch.where(torch.arange(6)[:, None, None, None] == 4, torch.nan, PIXELS),
            {},
            "got NaN or infinity in image 4 of the batch",
        ),
        (2 * PIXELS - 1, {"mean": [0.4], "std": [2.0]}, "`mean` and `std` must lead back to images from 0 to 1"),
        (PIXELS, {"mean": [0.5, 0.5]}, "`mean` must have a number for each channel, got 2 for 3 channels"),
        (PIXELS, {"policy": {"crop": 20}}, "`crop` must fit into an image"),
        (PIXELS[:, :1], {"policy": {"hue": 0.1}}, "`images` must have 3 channels for hue, got 1"),
    ],
)
def test_images_that_do_not_suit(images, options, message):
    with pytest.raises(ValueError, match=message):
        seen(BatchAugmentation(**{"policy": "cifar", **options}), (images, torch.arange(6)))


def test_bytes():
    with pytest.raises(TypeError, match=r"`images` must be floating point for BatchAugmentation, got torch\.uint8"):
        seen(BatchAugmentation("cifar"), (torch.zeros(6, 3, 8, 10, dtype=torch.uint8), torch.arange(6)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "randaugment"}, "`policy` must be able to run on the device, got 'randaugment'"),
        ({"policy": "cifer"}, "`policy` must be the name of a policy, got 'cifer'. The nearest are: cifar"),
        (
            {"policy": {"rotate": 3}},
            "`policy` must hold ranges of Augmentation, got 'rotate'. The nearest are: rotation",
        ),
        ({"policy": "cifar", "std": [0.5]}, "`mean` must be given beside `std`"),
        ({"policy": "cifar", "mean": [0.5], "std": [0.0]}, "`std` must be"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        BatchAugmentation(**options)


def test_a_policy_without_steps():
    (batch,) = seen(BatchAugmentation("none"), (PIXELS, torch.arange(6)))
    assert torch.equal(batch[0], PIXELS)


def test_it_runs_before_cutout_whatever_the_order():
    batch = (torch.full((16, 1, 8, 8), 0.5), torch.arange(16))
    for order in (1, -1):
        callbacks = [Cutout(2, fill=0.25), BatchAugmentation({"brightness": (2.0, 2.0)})][::order]
        ((changed, _),) = seen(callbacks, batch)
        assert changed.unique().tolist() == [0.25, 1.0]


@pytest.mark.parametrize("policy", ["cifar", "geometric", {"brightness": 0.4, "hue": 0.1, "erasing": 0.5}])
def test_the_host_never_waits_for_the_device(policy, monkeypatch):
    """Tensors on the device "meta" have no values: reading one raises."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # it does not know the device
    images, masks = torch.empty(8, 3, 32, 32, device="meta"), torch.empty(8, 32, 32, device="meta")
    for callback in (BatchAugmentation(policy), Cutout(8), Cutout(8, draw="batch"), Cutout(8, probability=0.5)):
        changed = callback.change(find_images((images, masks)), torch.Generator())
        assert changed.images.device.type == "meta"


def test_whitened_images_are_not_solved_for_on_the_host(monkeypatch):
    def solve(*args):
        raise AssertionError("a linear system for each batch")

    monkeypatch.setattr(torch.linalg, "solve", solve)
    data = DigitsDataModule(batch_size=64, preprocess="zca")
    toy_trainer(BatchAugmentation("cifar"), max_epochs=1, limit_train_batches=2).fit(Spy(), data)
