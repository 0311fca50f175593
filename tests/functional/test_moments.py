import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from lightning_trainingkit.functional.moments import Moments

OVER = ["channel", "pixel", "covariance"]


def measured(over, batches):
    moments = Moments(over)
    for batch in batches:
        moments.add(batch)
    return moments


def far_from_zero(images=700, dtype=torch.float32):
    """Images of mean 1000 and std 1 whose neighbours are correlated, with a constant pixel."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 2, 3, 4, generator=generator, dtype=torch.float64)
    x = 1000 + (x + x.roll(1, dims=-1)) / 2**0.5
    x[:, 0, 1, 2] = 1000.1
    return x.to(dtype)


def reference(x, over):
    """NumPy in float64."""
    x = x.double().numpy()
    if over == "channel":
        return x.mean((0, 2, 3)), x.var((0, 2, 3))
    if over == "pixel":
        return x.mean(0), x.var(0)
    flat = x.reshape(len(x), -1)
    return flat.mean(0), np.cov(flat, rowvar=False)


def found(moments):
    return moments.mean.numpy(), (moments.covariance if moments.over == "covariance" else moments.variance).numpy()


@given(n=st.integers(1, 9), channels=st.integers(1, 4), piece=st.integers(1, 5), seed=st.integers(0, 99))
def test_bytes_give_the_numbers_of_scikit_learn_however_they_are_streamed(n, channels, piece, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, channels, 3, 2), generator=generator, dtype=torch.uint8)
    moments = measured("channel", images.split(piece))
    peer = StandardScaler().fit(images.permute(0, 2, 3, 1).reshape(-1, channels).double() / 255)
    assert moments.mean.tolist() == pytest.approx(peer.mean_.tolist(), abs=1e-6)
    assert moments.variance.tolist() == pytest.approx(peer.var_.tolist(), abs=1e-6)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("piece", [7, 128, 700])
def test_a_large_mean_costs_no_digits(over, piece):
    x = far_from_zero()
    mean, spread = found(measured(over, x.split(piece)))
    expected_mean, expected = reference(x, over)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9)
    np.testing.assert_allclose(spread, expected, atol=1e-6)


@pytest.mark.parametrize("over", OVER)
def test_images_that_come_in_order_of_their_brightness(over):
    x = far_from_zero()
    x[350:] += 500
    mean, spread = found(measured(over, x.split(50)))
    expected_mean, expected = reference(x, over)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-7)
    np.testing.assert_allclose(spread, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("over", OVER)
def test_float64_is_summed_in_float64(over):
    x = far_from_zero(dtype=torch.float64)
    np.testing.assert_allclose(found(measured(over, x.split(64)))[1], reference(x, over)[1], atol=1e-11)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("ends", [(0, 700), (1, 350), (300, 300)])
def test_parts_merge_to_the_whole(over, ends):
    x = far_from_zero()
    first, second = ends
    parts = [measured(over, part.split(64)) for part in (x[:first], x[first:second], x[second:])]
    together = Moments(over)
    for part in parts:
        together.merge(part)
    assert together.images == 700
    before = [part.scatter.clone() for part in parts]
    np.testing.assert_allclose(found(together)[1], reference(x, over)[1], atol=1e-6)
    assert all(torch.equal(part.scatter, each) for part, each in zip(parts, before, strict=True))


def test_a_merged_part_tells_the_mean_of_the_next_batch():
    x = far_from_zero()
    moments = Moments("channel")
    moments.merge(measured("channel", [x[:300]]))
    for batch in x[300:].split(100):
        moments.add(batch)
    np.testing.assert_allclose(moments.variance, reference(x, "channel")[1], atol=1e-6)


def test_the_spread_is_that_of_the_pixels_not_the_mean_of_the_spreads_of_images():
    dark, light = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    assert measured("channel", [dark, light]).variance.tolist() == [0.25]  # each image alone has none


def test_images_of_several_sizes_have_common_channels():
    moments = measured("channel", [torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 4, 3)])
    assert moments.mean.tolist() == [pytest.approx(12 / 16)]


def test_images_are_left_as_they_were():
    x = far_from_zero(20)
    before = x.clone()
    measured("covariance", x.split(10))
    assert torch.equal(x, before)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_pixels_are_named_by_their_image(over, bad):
    x = far_from_zero(60)
    x[[41, 47], 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinity in image 41, 47, counted from 0"):
        measured(over, x.split(20)).mean.sum()
    with pytest.raises(ValueError, match=r"infinity in image 1, 7, counted"):
        measured(over, [x[40:]]).mean.sum()


def test_values_whose_squares_float32_does_not_hold():
    x = torch.tensor([0.0, 1e30]).view(1, 1, 1, 2)
    with pytest.raises(ValueError, match="must have squares within float32, got values above 1e19"):
        _ = measured("channel", [x]).mean
    assert measured("channel", [x.double()]).mean.item() == pytest.approx(5e29)


@pytest.mark.parametrize(
    ("over", "batches", "message"),
    [
        ("channel", [(1, 1, 2, 2), (1, 3, 2, 2)], r"must all have as many channels, got \(1,\) and \(3,\)"),
        ("pixel", [(1, 1, 2, 2), (1, 1, 2, 3)], r"must all have one shape, got \(1, 2, 2\) and \(1, 2, 3\)"),
        ("channel", [(2, 2)], r"must have shape \(N, C, H, W\), got \(2, 2\)"),
        ("covariance", [(1, 3, 33, 32)], r"at most 3,072 values for a covariance, got 3,168 \(3 x 33 x 32\)"),
    ],
)
def test_shapes_that_are_refused(over, batches, message):
    with pytest.raises(ValueError, match=message):
        measured(over, map(torch.zeros, batches))


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 2, 2, dtype=torch.long), [0.5]])
def test_types_that_are_refused(images):
    with pytest.raises(TypeError, match="`images` must be a tensor of bytes or floats"):
        Moments("channel").add(images)


def test_other_moments_do_not_merge():
    one, other = measured("pixel", [torch.zeros(1, 1, 2, 2)]), measured("pixel", [torch.zeros(1, 1, 2, 3)])
    with pytest.raises(ValueError, match="`other` must hold moments over pixel"):
        one.merge(other)
    with pytest.raises(ValueError, match="`covariance` must come from two images"):
        _ = one.covariance
    with pytest.raises(ValueError, match="`over` must be one of 'channel', 'pixel', 'covariance', got 'image'"):
        Moments("image")


def test_batches_of_several_sizes_types_and_origins_in_turns():
    generator = torch.Generator().manual_seed(0)
    sizes = (4, 4, 6, 4, 4, 6, 6)
    batches = [torch.rand(5, 2, side, side, generator=generator) for side in sizes]
    batches[1].requires_grad_()
    batches[3] = batches[3].double()
    moments = Moments("channel")
    for batch in [*batches, (255 * batches[4]).byte(), batches[0]]:
        moments.add(batch)
    given = [*batches, (255 * batches[4]).byte() / 255, batches[0]]
    values = torch.cat([each.detach().double().transpose(0, 1).flatten(1) for each in given], 1)
    assert moments.mean.tolist() == pytest.approx(values.mean(1).tolist(), rel=1e-6)
    assert moments.variance.tolist() == pytest.approx(values.var(1, correction=0).tolist(), rel=1e-6)
    assert not moments.mean.requires_grad
