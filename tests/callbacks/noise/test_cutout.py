import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import Cutout
from tests.toy import ToyModule, toy_trainer


class Spy(ToyModule):
    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return sum(weight.sum() for weight in self.parameters())

    def validation_step(self, batch, batch_idx):
        pass


def seen(callback, images, size=100, **options):
    """The batches that the training step got."""
    module = Spy()
    data = TensorDataset(images, torch.arange(len(images)) % 2)
    loader = DataLoader(data, size)
    toy_trainer(callback, max_epochs=1, **options).fit(module, loader, loader)
    return module.seen


def test_each_image_loses_a_square_that_the_border_clips():
    ((images, targets),) = seen(Cutout(4, seed=0), torch.ones(500, 3, 12, 9), size=500)
    holes = images == 0
    assert (holes == holes[:, :1]).all()  # in all channels
    assert torch.equal(targets, torch.arange(500) % 2)
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)  # rectangles
    assert rows.unique().tolist() == columns.unique().tolist() == [2, 3, 4]
    middle = holes[:, 0].float().mean(0)
    # a pixel is in the hole if the centre is one of 4 x 4 pixels, or of 3 x 3 in the corner
    assert middle[6, 4] == pytest.approx(16 / (12 * 9), abs=0.05)
    assert middle[0, 0] == pytest.approx(9 / (12 * 9), abs=0.05)


def test_one_square_for_the_batch():
    for images, _ in seen(Cutout(4, draw="batch", seed=0), torch.ones(40, 1, 8, 8), size=20):
        assert (images == images[:1]).all()
        assert (images == 0).any()


@pytest.mark.parametrize("draw", ["image", "batch"])
def test_the_probability(draw):
    batches = seen(Cutout(4, probability=0.3, draw=draw, seed=0), torch.ones(600, 1, 8, 8), size=2)
    changed = torch.cat([(images == 0).flatten(1).any(1) for images, _ in batches])
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.07)
    alike = changed[::2] == changed[1::2]
    assert alike.all() if draw == "batch" else not alike.all()


def test_the_fill_and_bytes():
    ((images, _),) = seen(Cutout(2, fill=7), torch.ones(4, 1, 4, 4, dtype=torch.uint8))
    assert images.dtype == torch.uint8
    assert images.unique().tolist() == [1, 7]


def test_the_users_tensor_keeps_its_values():
    images = torch.ones(4, 1, 4, 4)
    seen(Cutout(2), images)
    assert (images == 1).all()


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": 2.5}, {"size": 2, "draw": "pixel"}, {"size": 2, "fill": "grey"}]
)
def test_bad_arguments(options):
    with pytest.raises((TypeError, ValueError), match=f"`{list(options)[-1]}` must be"):
        Cutout(**options)


def test_a_square_larger_than_the_images():
    with pytest.raises(ValueError, match="`size` must be at most the shorter side of the images, 4 pixels, got 5"):
        seen(Cutout(5), torch.ones(4, 1, 4, 6))


def test_a_fill_that_bytes_cannot_hold():
    with pytest.raises(TypeError, match=r"`fill` must be a value that images of torch\.uint8 can hold, got 0\.5"):
        seen(Cutout(2, fill=0.5), torch.ones(4, 1, 4, 4, dtype=torch.uint8))
