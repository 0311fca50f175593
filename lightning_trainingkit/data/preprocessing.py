"""Fit the preprocessing of images on a training set."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data.distributed import DistributedSampler

from lightning_trainingkit._lightning import rank_zero_info
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.image_batch import Key, find_images
from lightning_trainingkit.functional.moments import Moments
from lightning_trainingkit.functional.preprocessing import AXES, PREPROCESSINGS, linear_map, principal_axes
from lightning_trainingkit.nn.layers.decorrelate import Decorrelate
from lightning_trainingkit.nn.layers.standardize import Standardize

__all__ = ["check_kind", "fit_preprocessing", "make_preprocessing", "restored_preprocessing", "start_moments"]


def fit_preprocessing(loader: Iterable[Any], kind: str = "channel", *, image: Key | None = None) -> nn.Module:
    """Fit a preprocessing in one pass over the batches of a training set, with constant memory.

    - ``none``: images from 0 to 1, as they are.
    - ``mean_image``: the mean of each pixel is subtracted (AlexNet).
    - ``channel_mean``: the mean of each channel is subtracted (VGG).
    - ``channel``: and divided by the standard deviation of the channel's pixels (ResNet).
    - ``pca``, ``pca_whitening``, ``zca``: ``lightning_trainingkit.functional.linear_map`` has the formulas. Images
      have at most 3,072 values.

    Ranks: a loader with a ``DistributedSampler`` holds the share of its rank. Every rank must call this. The shares
    are merged, and examples that the sampler repeats count once. Any other loader counts as the whole training set.

    Args:
        loader: Batches of bytes or floats ``(N, C, H, W)``: tensors, pairs that begin with them, or dicts.
        kind: One of the names above.
        image: Key or index of the images in a batch, if they cannot be told.

    Returns:
        ``Standardize`` or ``Decorrelate``, layers without parameters whose ``inverse`` makes pictures again. For
        ``none`` it is ``torch.nn.Identity``.

    Raises:
        TypeError: If a batch is no tensor, list, tuple or dict.
        ValueError: If the images in a batch cannot be told, hold NaN or infinity, or are too large for a covariance.
            If there are none.

    Example:
        >>> import torch
        >>> images = torch.tensor([0, 51, 102, 153, 204, 255], dtype=torch.uint8).view(6, 1, 1, 1)
        >>> fit_preprocessing(images.split(2), "channel")
        Standardize(mean=[0.5], std=[0.3416])

    References:
        Krizhevsky et al., NeurIPS 2012; Simonyan and Zisserman, ICLR 2015; He et al., CVPR 2016.
    """
    check_kind("kind", kind)
    moments = start_moments(kind)
    if moments is None:
        return make_preprocessing(kind, moments)
    error: Exception | None = None
    try:
        left = _own_images(loader)
        kind_of_batch, key = None, image
        for batch in loader:
            if type(batch) is not kind_of_batch or key is None:
                kind_of_batch, key = type(batch), find_images(batch, image).image
            images = batch if key is None else batch[key]
            moments.add(images if left is None else images[: left - moments.images])
    except Exception as raised:
        if not _is_share(loader):
            raise
        error = raised
    if _is_share(loader):
        moments = _over_ranks(kind, moments, error)
    return make_preprocessing(kind, moments)


def check_kind(name: str, kind: Any) -> str:
    """Return the name of a preprocessing. Raise ValueError, with the nearest names, if there is none of this name."""
    if kind not in PREPROCESSINGS:
        near = ", ".join(map(repr, _check.nearest(str(kind), PREPROCESSINGS)))
        raise ValueError(f"`{name}` must be one of {near}, got {kind!r}. Try 'channel'.")
    return str(kind)


def start_moments(kind: str) -> Moments | None:
    """Make the moments that a preprocessing needs."""
    if kind == "none":
        return None
    return Moments("covariance" if kind in AXES else "pixel" if kind == "mean_image" else "channel")


def make_preprocessing(kind: str, moments: Moments | None) -> nn.Module:
    """Make the layer from the moments of the training set."""
    if moments is None:
        return nn.Identity()
    if not moments.images:
        raise ValueError(
            "`loader` must give at least one batch of images, got none. Is the data set empty, or used up?"
        )
    if kind in AXES:
        axes = principal_axes(moments)
        if axes.shrinkage and kind != "pca":
            rank_zero_info(
                f"{kind}: {moments.images:,} images are too few for {len(axes.variances):,} values each. Whitening "
                f"shrinks their covariance by {axes.shrinkage:.1%} towards equal variances (OAS)."
            )
        return Decorrelate(moments.mean.view(moments.shape), linear_map(axes, kind))
    if kind == "channel":
        std = moments.variance.sqrt()
        # A constant channel keeps the scale 1. Float32 has no smaller deviations beside a large mean.
        return Standardize(moments.mean, torch.where(std > 1e-6 * moments.mean.abs().clamp_min(1), std, 1.0))
    return Standardize(moments.mean)


def restored_preprocessing(kind: str, state: dict[str, Tensor]) -> nn.Module:
    """Make the layer from its state."""
    state = {name: value.cpu() for name, value in state.items()}
    if kind == "none":
        return nn.Identity()
    if kind in AXES:
        return Decorrelate(state["mean"], state["matrix"])
    mean, std = (each.flatten() if each.shape[1:] == (1, 1) else each for each in (state["mean"], state["std"]))
    return Standardize(mean, std)


def _is_share(loader: Any) -> bool:
    """Whether a loader holds the share of one rank of several."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    sampler = getattr(loader, "sampler", None)
    return distributed and isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1


def _own_images(loader: Any) -> int | None:
    """Number of images in the share of this rank that are no repetitions. None: all."""
    if not _is_share(loader):
        return None
    sampler, images = loader.sampler, len(loader.dataset)
    return len(range(sampler.rank, images, sampler.num_replicas))


def _over_ranks(kind: str, own: Moments, error: Exception | None) -> Moments:
    """Merge the moments of all ranks, in one order on each, one rank after the other: memory stays constant."""
    merged = start_moments(kind)
    assert merged is not None
    failed = error
    for rank in range(torch.distributed.get_world_size()):
        box: list[Any] = [(own, error) if rank == torch.distributed.get_rank() else None]
        torch.distributed.broadcast_object_list(box, src=rank)
        theirs, raised = box[0]
        failed = failed or raised
        if failed is None:
            merged.merge(theirs)
    if failed is not None:
        raise failed
    return merged
