import contextlib
import copy
import math
import pickle
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

from lightning_trainingkit.functional.gain import split_call
from lightning_trainingkit.functional.views import View, make_views

SETS = [
    *("identity", "flip", "vertical_flip", "rotations", "shifts(3)", "scales(40, 24)", "five_crop(20)", "ten_crop(20)"),
    *("five_crop((20, 13))", "resnet_multi_scale", "airbench"),
]
SINGLES = [
    *("identity", "hflip", "vflip", "rot90", "rot180", "rot270", "shift(2, -1)", "scale(24)", "top_left(20)"),
    *(
        "top_right(20)",
        "bottom_left(20)",
        "bottom_right((9, 20))",
        "centre_crop(20)",
        "scale(24)>centre_crop(20)>hflip",
    ),
]
SIDES = st.integers(1, 9)


def images(height=32, width=36, n=2, dtype=torch.float32):
    x = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))
    return (x * 255).to(dtype) if dtype == torch.uint8 else x.to(dtype)


def numbered(height, width):
    """Images whose pixels all differ."""
    return torch.arange(2 * 3 * height * width).view(2, 3, height, width).float()


def single(text):
    (view,) = make_views([[text]])
    return view


def seen(views, x):
    return [view(x) for view in make_views(views)]


def negative(x):
    return 1 - x


def assert_same_images(found, expected):
    """Equal, in whatever order."""
    assert len(found) == len(expected)
    left = list(expected)
    for each in found:
        match = next(index for index, other in enumerate(left) if torch.equal(each, other))
        del left[match]


@pytest.mark.parametrize("size", [20, (20, 14)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_crops_are_those_of_torchvision(size, dtype):
    x = images(dtype=dtype)  # torchvision mirrors before it crops: the same where the centre is one
    for name, peer in (("five_crop", v2.FiveCrop(size)), ("ten_crop", v2.TenCrop(size))):
        per_image = [peer(image) for image in x]
        assert_same_images(seen(f"{name}({size})", x), [torch.stack(crops) for crops in zip(*per_image, strict=True)])


@pytest.mark.parametrize("shape", [(32, 36), (36, 32), (32, 32), (65, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_scales_are_those_of_torchvision_with_the_aspect_kept(shape, dtype):
    x = images(*shape, dtype=dtype)
    for side, scaled in zip((16, 48), seen("scales(16, 48)", x), strict=True):
        torch.testing.assert_close(scaled, torch.stack([v2.Resize(side, antialias=True)(image) for image in x]))
        assert (min(scaled.shape[2:]), scaled.dtype) == (side, dtype)
        assert max(scaled.shape[2:]) == int(side * max(shape) / min(shape))


def test_the_lecture_of_fifty_views():
    x = images(40, 60, n=1)
    expected = [
        crop for side in (224, 256, 384, 480, 640) for crop in v2.TenCrop(224)(v2.Resize(side, antialias=True)(x))
    ]
    views = make_views("resnet_multi_scale")
    assert [view.name for view in views] == [
        view.name for view in make_views(["scales(224, 256, 384, 480, 640)", "ten_crop(224)"])
    ]
    assert_same_images([view(x) for view in views], expected)


def test_airbench_by_hand():
    x = images(32, 32)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    down_right, up_left = padded[..., :32, :32], padded[..., 2:, 2:]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    def mirrored(inputs):
        return 0.5 * net(inputs) + 0.5 * net(inputs.flip(-1))

    expected = 0.5 * mirrored(x) + 0.5 * (mirrored(down_right) + mirrored(up_left)) / 2
    torch.testing.assert_close(sum(view.weight * net(view(x)) for view in make_views("airbench")), expected)
    assert [view.weight for view in make_views("airbench")] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]


@given(height=SIDES, width=SIDES)
def test_flips_and_rotations_are_those_of_torch(height, width):
    x = numbered(height, width)
    for ours, expected in (
        ("flip", [x, x.flip(3)]),
        ("vertical_flip", [x, x.flip(2)]),
        ("rotations", [x, x.transpose(2, 3).flip(2), x.flip(2, 3), x.transpose(2, 3).flip(3)]),
    ):
        assert all(map(torch.equal, seen(ours, x), expected))


@given(height=SIDES, width=SIDES)
def test_flips_and_rotations_are_undone_by_their_inverses(height, width):
    x = numbered(height, width)
    for there, back in (("hflip", "hflip"), ("vflip", "vflip"), ("rot90", "rot270"), ("rot180", "rot180")):
        assert torch.equal(single(f"{there}>{back}")(x), x)
        assert torch.equal(single(back)(single(there)(x)), x)


@given(height=SIDES, width=SIDES, data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.uint8]))
def test_shifts_move_every_pixel(height, width, data, dtype):
    x = numbered(height, width).remainder(256).to(dtype)
    dx, dy = (data.draw(st.integers(1 - side, side - 1)) for side in (width, height))
    expected = torch.empty_like(x)
    for i, j in product(range(height), range(width)):
        row, column = abs(i - dy), abs(j - dx)  # reflected at the first border, then at the last
        row, column = min(row, 2 * (height - 1) - row), min(column, 2 * (width - 1) - column)
        expected[..., i, j] = x[..., row, column]
    shifted = single(f"shift({dx}, {dy})")(x)
    assert torch.equal(shifted, expected)
    assert shifted.dtype == dtype


def test_shifts_go_up_down_left_and_right():
    x = numbered(5, 6)
    same, up, down, left, right = seen("shifts(2)", x)
    assert same is x
    assert torch.equal(up[..., :-2, :], x[..., 2:, :])
    assert torch.equal(down[..., 2:, :], x[..., :-2, :])
    assert torch.equal(left[..., :-2], x[..., 2:])
    assert torch.equal(right[..., 2:], x[..., :-2])


def test_views_are_those_of_ttach():
    ttach = pytest.importorskip("ttach")
    x = images(32, 36)
    for ours, theirs in (
        (["flip", "rotations"], ttach.aliases.d4_transform()),
        (["flip", "vertical_flip"], ttach.aliases.flip_transform()),
        ("ten_crop(20)", ttach.aliases.ten_crop_transform(20, 20)),
        ("five_crop((20, 14))", ttach.aliases.five_crop_transform(20, 14)),
    ):
        assert_same_images(seen(ours, x), [transformer.augment_image(x) for transformer in theirs])


def test_stages_are_made_in_order_and_their_product_runs_last_stage_first():
    views = make_views(["scales(24, 48)", "flip", negative])
    assert [view.name for view in views] == [
        *("scale(24)", "scale(24)>negative", "scale(24)>hflip", "scale(24)>hflip>negative"),
        *("scale(48)", "scale(48)>negative", "scale(48)>hflip", "scale(48)>hflip>negative"),
    ]
    x = images()
    by_hand = 1 - v2.functional.resize(x, [48]).flip(-1)
    torch.testing.assert_close(views[-1](x), by_hand)
    assert seen(["five_crop(20)", "scales(40)"], x)[0].shape[2:] == (40, 40)
    assert torch.equal(single("top_left(20)>rot90")(x), x[..., :20, :20].rot90(1, (2, 3)))
    assert not torch.equal(single("rot90>top_left(20)")(x), single("top_left(20)>rot90")(x))


@given(st.lists(st.sampled_from([*SETS, negative, ["hflip", "rot90", negative]]), min_size=1, max_size=3))
def test_numbers_of_views_and_weights_multiply(stages):
    views, parts = make_views(stages), [make_views([stage]) for stage in stages]
    assert len(views) == math.prod(map(len, parts))
    assert math.fsum(view.weight for view in views) == pytest.approx(1, abs=1e-9)
    assert [view.weight for view in views] == pytest.approx(
        [math.prod(view.weight for view in each) for each in product(*parts)]
    )


def test_a_view_that_does_nothing_is_not_named_in_a_row():
    assert [view.name for view in make_views(["identity", ["identity>identity"], "flip"])] == ["identity", "hflip"]


def test_a_function_of_the_users():
    x = images()
    assert [view.name for view in make_views(negative)] == ["identity", "negative"]
    assert all(map(torch.equal, seen(negative, x), [x, 1 - x]))
    assert all(map(torch.equal, seen([["hflip", negative]], x), [x.flip(-1), 1 - x]))
    names = [view.name for view in make_views([[partial(torch.add, other=1), v2.GaussianBlur(3), nn.Sequential()]])]
    assert names == ["add", "GaussianBlur", "Sequential"]


def test_views_that_are_made_are_a_stage():
    made = make_views("airbench")
    assert make_views(made) == made
    assert [view.weight for view in make_views([made, "flip"])][:4] == [0.125] * 4
    own = [View("bright", 0.75, partial(torch.mul, other=2)), View("as it is", 0.25, torch.clone)]
    assert [(view.name, view.weight) for view in make_views(["identity", own, "flip"])] == [
        *(("bright", 0.375), ("bright>hflip", 0.375), ("as it is", 0.125), ("as it is>hflip", 0.125))
    ]


@pytest.mark.parametrize("text", SINGLES)
def test_a_name_is_what_makes_the_view(text):
    x = images()
    view = single(text.replace(" ", ""))
    assert view.name == text
    assert torch.equal(view(x), single(view.name)(x))
    assert view.weight == 1


@pytest.mark.parametrize("views", [*SETS, [negative, "flip"], [SINGLES]])
def test_views_pickle_copy_and_leave_the_images_alone(views):
    x = images(48, 36, n=1)
    before = x.clone()
    made = make_views(views)
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert other == made
        for view, twin in zip(made, other, strict=True):
            assert torch.equal(view(x), twin(x))
    assert torch.equal(x, before)


def test_nothing_is_copied_that_stays_as_it_is():
    x = images()
    for views in ("identity", ["identity", "identity"], [["identity", "identity>identity"]]):
        assert all(view is x for view in seen(views, x))
    assert single("scale(32)")(x) is x
    for crop in seen("five_crop(20)", x):
        assert crop.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


@pytest.mark.parametrize("text", ["hflip", "vflip", "rot180", "shift(2, -1)", "scale(24)"])
def test_channels_last_is_kept(text):
    x = images().to(memory_format=torch.channels_last)
    view = single(text)
    assert view(x).stride()[1] == 1
    torch.testing.assert_close(view(x), view(x.contiguous()))


@pytest.mark.parametrize("text", SINGLES)
def test_a_batch_of_no_images(text):
    assert len(single(text)(images(n=0))) == 0


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("tencrop(224)", r"must be the name of a set of views, got 'tencrop\(224\)'\. Did you mean ten_crop\(s\)"),
        ("ten_crop(224", r"got 'ten_crop\(224'\. Did you mean ten_crop"),
        ("", r"got ''\. Choose from identity, flip, .*shifts\(p\), .*airbench"),
        ("quux", r"got 'quux'\. Choose from identity, flip, .*shifts\(p\), .*airbench"),
        ("hflip", r"It is a single view, and goes into a list inside the list: \[\['identity', 'hflip'\]\]"),
        ("scale(256)>hflip", r"It is a single view"),
        ([["flip"]], r"must be the name of a single view, got 'flip'\. It is a set of views, .* outer list"),
        ([["hflp"]], r"must be the name of a single view, got 'hflp'\. Did you mean hflip.*centre_crop\(s\)"),
        ([["hflip>"]], r"must be the name of a single view, got ''"),
        ("flip(2)", r"must be flip without arguments, got 'flip\(2\)'\. Write it like flip\."),
        (
            "five_crop()",
            r"must be five_crop\(s\) with s a positive integer or a pair .* Write it like five_crop\(224\)",
        ),
        *((f"five_crop({bad})", r"must be five_crop\(s\) with") for bad in ("0", "-1", "2.5", "x", "'a'", "(1, 2, 3)")),
        *((f"five_crop({bad})", r"must be five_crop\(s\) with") for bad in ("True", "8, 9", "(8, 0)", "8],[9", "2**9")),
        *(
            (f"shifts({bad})", r"must be shifts\(p\) with p a positive integer")
            for bad in ("", "0", "-2", "1, 2", "1.")
        ),
        *((f"scales({bad})", r"must be scales\(s1, s2, ...\) with positive") for bad in ("", "0", "1, -2", "(1, 2)")),
        *(([[f"shift({bad})"]], r"must be shift\(dx, dy\) with two integers") for bad in ("", "1", "1, 2, 3", "1, 2.")),
        ("scales(__import__('os').getcwd())", r"must be scales"),
        ("scales(" + "(" * 5000 + ")" * 5000 + ")", r"must be scales"),
        ([], r"must hold a stage, got an empty list"),
        (["flip", []], r"must hold no empty list, got \[\]"),
        ([View("a", 0.5, torch.clone), View("b", 0.25, torch.clone)], r"weights that sum to 1, got the sum 0\.75"),
        (["flip", View("a", 0.5, torch.clone)], r"weights that sum to 1, got the sum 0\.5"),
        (["flip", make_views("flip")[:1]], r"got the sum 0\.5 of \['identity'\]\. Divide them by 0\.5"),
    ],
)
def test_views_that_are_none(views, message):
    with pytest.raises(ValueError, match=f"`views` .*{message}"):
        make_views(views)


@pytest.mark.parametrize(
    "views", [None, 3, {"flip": 1}, ["flip", 3], [["hflip", 3]], [[["hflip"]]], [["hflip", *make_views("identity")]]]
)
def test_stages_of_a_wrong_type(views):
    with pytest.raises(TypeError, match="`views` must hold"):
        make_views(views)


@given(
    st.text(max_size=20)
    | st.builds("{}({})".format, st.sampled_from(["scales", "five_crop"]), st.text("0123456789,.()[]-*' #", max_size=9))
)
@example("flip")
def test_any_text_makes_views_or_a_clear_error(text):
    if split_call(text)[0] in {
        split_call(each)[0] for each in SETS
    }:  # hypothesis also tries words that stand in the source
        with contextlib.suppress(ValueError):
            assert sum(view.weight for view in make_views(text)) == pytest.approx(1)
        return
    with pytest.raises(ValueError, match=r"^`views` must be "):
        make_views(text)


def test_weights_of_sums_within_a_millionth_are_taken():
    assert len(make_views([View("a", 0.5, torch.clone), View("b", 0.5 + 5e-7, torch.clone)])) == 2
    with pytest.raises(ValueError, match="sum to 1"):
        make_views([View("a", 0.5, torch.clone), View("b", 0.5 + 5e-6, torch.clone)])


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_weight_of_a_view(weight):
    with pytest.raises(ValueError, match=r"`weight` must be .*above 0, got"):
        View("a", weight, torch.clone)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("five_crop(224)", r"`five_crop\(224\)` must be .* got images of 32 x 36 .* put scales\(256\) before it"),
        ("ten_crop((33, 20))", r"`ten_crop\(\(33, 20\)\)` must be no larger than the images, got images of 32 x 36"),
        (["scales(24)", "ten_crop(28)"], r"`ten_crop\(28\)` must be .* got images of 24 x 27 "),
        ([["top_left(37)"]], r"`top_left\(37\)` must be no larger"),
        ([["centre_crop((20, 37))"]], r"`centre_crop\(\(20, 37\)\)` must be no larger"),
        ("shifts(32)", r"`shifts\(32\)` must move images by less than their side, got images of 32 x 36"),
        ([["shift(-36, 0)"]], r"`shift\(-36, 0\)` must move images by less"),
        (lambda x: x[0], r"`<lambda>` must return images of shape \(N, C, H, W\), got shape \(3, 32, 36\)"),
        (lambda x: x[:1], r"`<lambda>` must return as many images as it gets, 2, got 1"),
    ],
)
def test_images_that_do_not_fit(views, message):
    with pytest.raises(ValueError, match=message):
        seen(views, images())


def test_arguments_that_are_no_images():
    with pytest.raises(ValueError, match=r"`x` must be images of shape \(N, C, H, W\), got shape \(3, 32, 36\)"):
        seen("flip", images()[0])
    with pytest.raises(TypeError, match="`x` must be a tensor of images, got list"):
        seen("flip", [images()])
    with pytest.raises(TypeError, match="`tuple_of` must return a tensor of images, got tuple"):
        seen(tuple_of, images())


def tuple_of(x):
    return x, x


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda x: None, "must return a tensor of images, got NoneType"),
        (lambda x: x[:1], "must return as many images as it gets, 2, got 1"),
    ],
)
def test_what_a_view_object_returns_is_looked_at(transform, message):
    own = make_views([View("own", 0.5, transform), View("as it is", 0.5, torch.clone)])
    with pytest.raises((TypeError, ValueError), match=message):
        own[0](torch.rand(2, 1, 4, 4))


def test_view_objects_of_the_kit_stay_as_they_are():
    views = make_views("ten_crop(3)")
    assert [view.steps for view in make_views(views)] == [view.steps for view in views]
