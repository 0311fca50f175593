"""Replace the normalisation layers of a finished model, or fold them into the layers before them."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.layers.replace import (
    check_place,
    find_places,
    is_kind,
    named,
    refuse_replaced,
    refuse_shared,
)
from lightning_trainingkit.nn.layers.replacement import Replacement, refuse_hooks
from lightning_trainingkit.nn.structure.layers_before import Source, layers_before
from lightning_trainingkit.nn.structure.names import plain_name

__all__ = ["replace_normalization"]

Kind = Literal["batch", "group", "layer", "none"]
_KINDS = ("batch", "group", "layer", "none")
_BY = "replace_normalization"
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm),
)


def replace_normalization(model: nn.Module, to: Kind | Mapping[str, Kind], *, fold: bool = False) -> Replacement:
    """Replace the normalisation layers of a finished model, in place. The model is not run.

    - **group** has at most 32 groups, each of at least 4 channels where that divides them, and one group in the place
      of a 1d norm, which may have no positions. **layer** has one group. Scales and shifts of the old layers stay.
    - **batch** starts with running statistics of mean 0 and variance 1.
    - **none** removes the layers, with their scales and shifts. With ``fold=True`` a BatchNorm becomes part of the
      layer before it, and the output in eval mode stays, but for rounding.
    - **Layers of timm that also apply an activation** become a norm, followed by that activation.

    Args:
        model: Any model. Batch, instance and group norms, and ``LayerNorm2d`` of torchvision and timm, are replaced.
            ``nn.LayerNorm``, whose channels come last, stays unless a pattern names it.
        to: The new normalisation for all places, or a dict of name patterns to it. The last match wins.
        fold: Whether BatchNorm is folded into the layer before it. For ``none`` alone.

    Returns:
        What was done: ``new_keys``, ``removed_keys``, ``added_parameters``, and ``undo()``.

    Raises:
        TypeError: If a place is TorchScript, quantised or wrapped.
        ValueError: If a pattern matches no normalisation layer, a layer can't be replaced, or no linear or
            convolutional layer, whose output the norm alone takes, stands before a layer to fold.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        >>> replace_normalization(net, "none", fold=True).new_keys
        ['0.bias']
        >>> net[1]
        Identity()

    References:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.
        Wu and He, "Group Normalization", ECCV 2018, arXiv:1803.08494.
    """
    given: Any = {"*": to} if isinstance(to, str) else to
    if not isinstance(given, Mapping) or not given:
        raise TypeError(f"`to` must be a normalisation or a dict of name patterns to it, got {to!r}. Write 'group'.")
    for kind in given.values():
        _check.one_of("to", kind, _KINDS, "Write 'group', or {'net.layer4.*': 'none'}.")
    if _check.flag("fold", fold) and set(given.values()) != {"none"}:
        raise ValueError(f"`fold` must be False unless `to` is 'none', got True for {to!r}. Leave it out.")
    layers = named(model)
    norms = {name: each for name, each in layers.items() if name and _is_norm(each, by_name=name in given)}
    rule = "match a norm layer with channels in dimension 1"
    places = find_places("to", given, model, norms, rule=rule, hint="An exact name matches nn.LayerNorm, too.")
    sources = layers_before(model, list(places)) if fold else {}
    new: dict[str, nn.Module] = {}
    for name, kind in places.items():
        old = norms[name]
        check_place(model, name, by=_BY)
        refuse_replaced(name, old, by=_BY)
        refuse_shared(model, name, old, by=_BY)
        if _is_kind(old, kind):
            continue
        if fold:
            new |= _folded(model, name, old, layers, sources[name])
        else:
            norm = nn.Identity() if kind == "none" else _norm(name, old, kind)
            new[name] = _with_activation(old, norm)
    done = Replacement(model, new, _BY)
    done.put()
    return done


def _is_norm(module: nn.Module, *, by_name: bool) -> bool:
    if isinstance(module, _NormBase) or is_kind(module, _NORMS):
        return True
    return isinstance(module, nn.LayerNorm) and (by_name or type(module).__name__ == "LayerNorm2d")


def _is_kind(norm: nn.Module, kind: str) -> bool:
    if isinstance(norm, nn.GroupNorm):
        return kind == ("layer" if norm.num_groups == 1 else "group")
    return kind == "batch" and isinstance(norm, _BatchNorm)


def _channels(name: str, norm: Any) -> int:
    if isinstance(norm, _NormBase):
        return norm.num_features
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    if type(norm).__name__ != "LayerNorm2d" or len(norm.normalized_shape) != 1:
        raise ValueError(
            f"`{name}` must have its channels in dimension 1, got {norm}, whose channels come last. Use 'none', or "
            "leave it out."
        )
    return int(norm.normalized_shape[0])


@torch.no_grad()
def _norm(name: str, old: nn.Module, kind: str) -> nn.Module:
    """Make a norm with the channels, scale and shift of an old one."""
    source: Any = old
    channels = _channels(name, old)
    weight, bias = getattr(old, "weight", None), getattr(old, "bias", None)
    where = {} if weight is None else {"device": weight.device, "dtype": weight.dtype}
    affine = weight is not None
    new: nn.Module
    if kind == "batch":
        new = _batch_norm(name, old)(channels, eps=source.eps, affine=affine, **where)
    else:
        is_flat = type(old).__name__.endswith("1d")  # without positions a group of one channel would be all zeros
        most = 1 if kind == "layer" or is_flat else max(1, min(32, channels // 4))
        groups = max(n for n in range(1, most + 1) if channels % n == 0)
        new = nn.GroupNorm(groups, channels, eps=source.eps, affine=affine, **where)
    for key, value in {"weight": weight, "bias": bias}.items():
        mine = getattr(new, key)
        if mine is not None and value is not None:
            mine.copy_(value)
            mine.requires_grad_(value.requires_grad)
    return new


def _batch_norm(name: str, old: nn.Module) -> Any:
    """The class of BatchNorm for the dimensions of an old norm."""
    kinds = {"1d": nn.BatchNorm1d, "2d": nn.BatchNorm2d, "3d": nn.BatchNorm3d}
    for end, kind in kinds.items():
        if type(old).__name__.endswith(end) or isinstance(old, kind):
            return kind
    raise ValueError(
        f"`{name}` must know its dimensions to become a BatchNorm, got {type(old).__name__}. Put nn.BatchNorm2d there "
        "by hand."
    )


def _with_activation(old: nn.Module, new: nn.Module) -> nn.Module:
    """Put the activation of timm's norm layers behind a new norm."""
    parts = [(key, child) for key, child in old.named_children() if type(child) is not nn.Identity]
    if not parts:
        return new
    return nn.Sequential(OrderedDict([("norm", new), *parts]))


def _folded(
    model: nn.Module, name: str, norm: nn.Module, layers: dict[str, nn.Module], source: Source
) -> dict[str, nn.Module]:
    """The new modules for a BatchNorm that becomes part of the layer before it."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        raise ValueError(
            f"`{name}` must be a BatchNorm with running statistics to be folded, got {norm}. Leave `fold` out."
        )
    if len(source.layers) != 1:
        raise ValueError(
            f"`{name}` must follow one linear or convolutional layer, whose output it alone takes, to be folded, got "
            f"one whose input comes from {source.words}. Leave `fold` out, or give patterns that leave it out."
        )
    before = plain_name(source.layers[0])
    check_place(model, before, by=_BY)
    refuse_replaced(before, layers[before], by=_BY)
    refuse_shared(model, before, layers[before], by=_BY)
    refuse_hooks(before, layers[before], _BY)
    layer: Any = layers[before]
    transposed = isinstance(layer, _ConvTransposeNd)
    if transposed and layer.groups > 1:
        raise ValueError(
            f"`{name}` must not follow a transposed convolution of several groups to be folded, got {layer}. "
            "Give patterns that leave it out."
        )
    fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    modes = layer.training, norm.training
    layer.training = norm.training = False
    try:
        fused = fuse(layer, norm, *([True] if transposed else []))
    finally:
        layer.training, norm.training = modes
    for key, value in fused.named_parameters():
        kept = getattr(layer, key, None)
        value.requires_grad_(norm.weight.requires_grad if kept is None else kept.requires_grad)
    return {before: fused, name: _with_activation(norm, nn.Identity())}
