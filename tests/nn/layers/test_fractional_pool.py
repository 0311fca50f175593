import itertools

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.layers.fractional_pool import FractionalRegions, pool_fault

POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.MaxPool2d(3),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d((2, 3), (2, 3)),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_sizes_stay_and_each_output_is_the_largest_of_a_region_near_the_plain_one(pool):
    torch.manual_seed(0)
    for height, width in itertools.product((7, 8, 9, 16), (8, 13)):
        x = torch.randn(2, 3, height, width)
        plain = pool(x)
        noise = FractionalRegions(pool, by="FractionalMaxPool")
        y = pool(x)
        assert y.shape == plain.shape
        assert torch.isin(y, x).all()  # and no border
        assert (y != plain).any()
        assert torch.equal(pool.eval()(x), plain)
        pool.train()
        noise.remove()
        assert torch.equal(pool(x), plain)


def test_the_regions_are_those_of_the_paper():
    """A slow reference: the regions of a row, for the draws that torch's generator gives."""
    pool, x = nn.MaxPool2d(2), torch.randn(2, 3, 8, 8)
    FractionalRegions(pool, by="FractionalMaxPool")
    torch.manual_seed(5)
    y = pool(x)
    torch.manual_seed(5)
    draws = torch.rand(2, 3, 4)
    ratio = (9 - 2) / (4 - 1)
    for image, channel in itertools.product(range(2), range(3)):
        *starts, before_rows, before_columns = draws[image, channel].tolist()
        left, top = [[int((i + u) * ratio) - int(u * ratio) for i in range(3)] + [7] for u in starts]
        more = [int(before_columns < 0.5), int(before_columns >= 0.5), int(before_rows < 0.5), int(before_rows >= 0.5)]
        wide = nn.functional.pad(x[image, channel], more, value=-torch.inf)
        for row, column in itertools.product(range(4), range(4)):
            region = wide[top[row] : top[row] + 2, left[column] : left[column] + 2]
            assert y[image, channel, row, column] == region.max()


def test_small_images_keep_all_their_pixels():
    """Training must resemble evaluation: a pixel that training never sees would be new in evaluation."""
    pool = nn.MaxPool2d(2)
    FractionalRegions(pool, by="FractionalMaxPool")
    x = torch.eye(16).view(16, 1, 4, 4)  # one bright pixel in each image
    seen = torch.stack([pool(x).amax(dim=(1, 2, 3)) for _ in range(200)]).mean(dim=0)
    assert seen.min() > 0.1
    assert torch.equal(pool(x[:, :, :2, :2]), nn.MaxPool2d(2)(x[:, :, :2, :2]))  # a single region has no room


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_and_single_images(dtype):
    pool = nn.MaxPool2d(2)
    FractionalRegions(pool, by="FractionalMaxPool")
    assert pool(torch.randn(3, 8, 8, dtype=dtype)).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (nn.MaxPool2d(2, padding=1), "in the border"),
        (nn.MaxPool2d(1, 2), "in the border"),
        (nn.MaxPool2d(3, 1), "stride is 1"),
        (nn.MaxPool2d(2, return_indices=True), "indices"),
        (nn.MaxPool2d(2, dilation=2), "dilated"),
    ],
)
def test_pools_that_cannot_have_random_regions(pool, reason):
    assert reason in pool_fault(pool)


def test_halves_have_the_regions_of_floats():
    """Places computed in bfloat16 are coarse: at 256 pixels some regions would begin twice."""
    x = torch.randn(1, 2, 256, 256).bfloat16()
    outputs = []
    for images in (x, x.float()):
        pool = nn.MaxPool2d(2)
        FractionalRegions(pool, by="FractionalMaxPool")
        torch.manual_seed(0)
        outputs.append(pool(images))
    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(outputs[0].float(), outputs[1])
