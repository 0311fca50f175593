import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.decomposition import PCA

from lightning_trainingkit.functional.moments import Moments
from lightning_trainingkit.functional.preprocessing import linear_map, principal_axes


def images(count=900, mean=1000.0, constant=2):
    """Float32 images ``(N, 1, 5, 6)`` with well-separated variances around 1, and constant pixels."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(1.5, 0.3, 30, dtype=torch.float64)
    mixing = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))[0]
    x = mean + (torch.randn(count, 30, generator=generator, dtype=torch.float64) * scales) @ mixing
    x[:, :constant] = mean + 0.1
    return x.float().view(count, 1, 5, 6)


def moments_of(x, piece=100):
    moments = Moments("covariance")
    for batch in x.split(piece):
        moments.add(batch)
    return moments


def peer_of(x):
    flat = x.flatten(1).double().numpy()
    return flat, PCA().fit(flat)


@pytest.mark.parametrize("mean", [0.5, 1000.0])
def test_variances_and_components_are_those_of_scikit_learn_with_their_signs(mean):
    x = images(mean=mean)
    axes, (_, peer) = principal_axes(moments_of(x)), peer_of(x)
    np.testing.assert_allclose(axes.variances, peer.explained_variance_, atol=1e-6)
    np.testing.assert_allclose(axes.components[:28], peer.components_[:28], atol=1e-6)
    assert axes.shrinkage == 0


@pytest.mark.parametrize("mean", [0.5, 1000.0])
@pytest.mark.parametrize("kind", ["pca", "pca_whitening"])
def test_the_data_are_those_of_scikit_learn(mean, kind):
    x = images(mean=mean)
    moments = moments_of(x)
    flat, _ = peer_of(x)
    peer = PCA(28, whiten=kind == "pca_whitening", svd_solver="full").fit_transform(flat)
    y = (flat - moments.mean.numpy()) @ linear_map(principal_axes(moments), kind).numpy().T
    np.testing.assert_allclose(y[:, :28], peer, atol=1e-6)
    np.testing.assert_allclose(y[:, 28:], 0, atol=1e-6)  # constant pixels keep their scale


def test_zca_whitens_and_stays_nearest_to_the_images():
    x = images(constant=0)
    moments = moments_of(x)
    flat, peer = peer_of(x)
    matrix = linear_map(principal_axes(moments), "zca").numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    expected = peer.components_.T @ np.diag(peer.explained_variance_**-0.5) @ peer.components_
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    np.testing.assert_allclose(np.cov((flat - flat.mean(0)) @ matrix, rowvar=False), np.eye(30), atol=1e-6)


@pytest.mark.parametrize("count", [2, 20, 30])
def test_with_fewer_images_than_values_the_covariance_is_shrunk_as_by_scikit_learn(count):
    x = images(count, constant=0)
    flat, _ = peer_of(x)
    peer = OAS().fit(flat)
    axes = principal_axes(moments_of(x))
    assert axes.shrinkage == pytest.approx(peer.shrinkage_, abs=1e-6)
    divided = axes.components.T @ torch.diag(axes.variances) @ axes.components * ((count - 1) / count)
    np.testing.assert_allclose(divided, peer.covariance_, atol=1e-6)
    assert linear_map(axes, "zca").isfinite().all()


def test_the_same_images_give_the_same_axes():
    one, other = (principal_axes(moments_of(images(200, constant=0), piece)) for piece in (200, 33))
    torch.testing.assert_close(one.components, other.components, atol=1e-6, rtol=0)


def test_constant_images():
    axes = principal_axes(moments_of(torch.full((40, 1, 5, 6), 0.3)))
    assert axes.variances.abs().max() < 1e-12
    for kind in ("pca", "pca_whitening", "zca"):
        assert linear_map(axes, kind).abs().max() <= 1 + 1e-12


def test_bad_input():
    with pytest.raises(ValueError, match="over a covariance and of at least 2 images, got covariance and 1"):
        principal_axes(moments_of(images(1)))
    with pytest.raises(ValueError, match="must be over a covariance and of at least 2 images, got channel and 0"):
        principal_axes(Moments("channel"))
    with pytest.raises(ValueError, match="`kind` must be one of 'pca', 'pca_whitening', 'zca', got 'ica'"):
        linear_map(principal_axes(moments_of(images(50))), "ica")
