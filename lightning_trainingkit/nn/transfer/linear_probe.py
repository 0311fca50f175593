"""A linear probe: the last layer alone, solved to convergence over the features of the images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.logistic import fit_logistic
from lightning_trainingkit.functional.split import stratified_split
from lightning_trainingkit.nn.initialization.layer_weight import weight_fault
from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["LinearProbe", "linear_probe"]

_STRENGTHS = tuple(10.0**power for power in range(-5, 2))


@dataclass(frozen=True)
class LinearProbe:
    """The result of `linear_probe`.

    Args:
        head: Name of the layer that was solved.
        l2: Strength of the penalty.
        train_acc: Accuracy on the training images.
        val_acc: Accuracy on the validation images, None if there were none.
    """

    head: str
    l2: float
    train_acc: float
    val_acc: float | None


def linear_probe(
    model: nn.Module,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    *,
    l2: float | None = None,
) -> LinearProbe:
    """Solve the last layer of a classifier by L-BFGS over the features of all images. All other layers stay.

    The images pass through the model once, in eval mode and without a gradient, so a probe takes seconds. It is the
    baseline for fine-tuning on few images. ``fit_logistic`` minimises the loss, on standardised features.

    Args:
        model: A classifier whose last layer is linear, with as many outputs as there are classes (``replace_head``).
            Or a LightningModule whose forward takes the images. The layer's weight and bias are written in place.
            Images of a floating dtype are cast to the dtype of the model.
        train: Batches of images and class indices, a DataLoader without augmentation. Its features are kept in memory.
        val: The same for validation.
        l2: Strength of the penalty. None tries 1e-5, 1e-4, ... 10 and takes the smallest loss on ``val``. Without
            ``val`` a fifth of the training images decides; then all of them train.

    Returns:
        The layer, the strength and the accuracies.

    Raises:
        TypeError: If ``l2`` is no number, or a batch is no pair of a tensor and class indices.
        ValueError: If the last layer is not linear on features ``(N, D)``, is parametrised, or is not called once in
            each forward. If the model returns another class than this layer, or a label is out of range. The model is
            then unchanged.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x = torch.randn(64, 1, 2, 2)
        >>> probe = linear_probe(net, DataLoader(TensorDataset(x, (x.sum((1, 2, 3)) > 0).long()), 16))
        >>> probe.head, probe.train_acc > 0.8
        ('3', True)

    References:
        Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016, arXiv:1610.01644.
    """
    if l2 is not None:
        l2 = _check.number("l2", l2, "None chooses it.", least=0)
    name = find_head(model)
    head = model.get_submodule(name) if name else model
    if not isinstance(head, nn.Linear):
        raise ValueError(f"`model` must end in a linear layer, got {head} as `{name}`. Probe another model.")
    if any(key not in head._parameters for key in ("weight", "bias")):
        raise ValueError(
            f"`model` must end in a layer that holds its weight itself, got `{name}` with a parametrisation or a hook "
            "that computes it. Take it off before the probe (torch.nn.utils.parametrize.remove_parametrizations)."
        )
    if problem := weight_fault(head):
        raise ValueError(f"`model`: `{name}` {problem}")
    for argument, loader in (("train", train), ("val", val)):
        if loader is not None and not hasattr(loader, "__iter__"):
            raise TypeError(
                f"`{argument}` must be batches of images and class indices, got {type(loader).__name__}. "
                "Give a DataLoader; of a DataModule, call `setup()`, then give its `train_dataloader()`."
            )
    batches = iter(train)
    first = list(islice(batches, 1))
    features, targets = _features(model, name, head, chain(first, batches))
    held_out = None if val is None else _features(model, name, head, val)
    bias = head.bias is not None
    if l2 is None:
        fit_on, judge_on = (features, targets), held_out
        if judge_on is None:
            kept, out = stratified_split(targets.cpu(), 0.2, torch.Generator().manual_seed(0))
            kept, out = kept.to(targets.device), out.to(targets.device)
            fit_on, judge_on = (features[kept], targets[kept]), (features[out], targets[out])
        if not len(judge_on[1]) or not len(fit_on[1]):
            raise ValueError(f"`l2` must be given for {len(targets)} images, too few to choose it, got None.")
        losses = {}
        for strength in _STRENGTHS:
            weight, offset = fit_logistic(*fit_on, head.out_features, strength, bias=bias)
            losses[strength] = float(cross_entropy(judge_on[0] @ weight.T + offset, judge_on[1]))
        l2 = min(losses, key=losses.__getitem__)
    weight, offset = fit_logistic(features, targets, head.out_features, l2, bias=bias)
    before = [(each, each.detach().clone()) for each in (head.weight, head.bias) if each is not None]
    with torch.no_grad():
        for (parameter, _), value in zip(before, (weight, offset), strict=False):
            parameter.copy_(value)
    share = _share_said(model, head, first[0], features @ weight.T + offset)
    if share < 0.99:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)
        raise ValueError(
            f"`model` must return the class of its last layer, got another class than `{name}` gives for "
            f"{1 - share:.0%} of some images: something follows it, or it shares its weight. Probe another part."
        )

    def accuracy(part: tuple[Tensor, Tensor]) -> float:
        return float(((part[0] @ weight.T + offset).argmax(dim=1) == part[1]).double().mean())

    found = accuracy((features, targets)), None if held_out is None else accuracy(held_out)
    return LinearProbe(name, l2, *found)


def _features(model: nn.Module, name: str, head: nn.Linear, loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """The inputs of the head, ``(N, D)`` in float32 or wider, and the targets ``(N,)``, on the head's device."""
    seen: list[Tensor] = []
    features: list[Tensor] = []
    targets: list[Tensor] = []
    hook = head.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["input"]), with_kwargs=True
    )
    try:
        with evaluating(model), torch.no_grad():
            for batch in loader:
                _check_batch(batch)
                seen.clear()
                model(_images(model, head, batch))
                if len(seen) != 1 or seen[0].ndim != 2:
                    shapes = [tuple(each.shape) for each in seen]
                    raise ValueError(
                        f"`model` must call its last layer, `{name}`, once with features (N, D), got {shapes}. "
                        "Probe a part that does."
                    )
                wide = torch.promote_types(seen[0].dtype, torch.float32)
                features.append(seen[0].to(wide))
                targets.append(torch.as_tensor(batch[1]).to(head.weight.device))
    finally:
        hook.remove()
    if not targets:
        raise ValueError("`train` and `val` must yield at least one batch, got none. Is the data set empty?")
    labels = torch.cat(targets)
    if labels.ndim != 1 or labels.is_floating_point():
        raise TypeError(f"`train` and `val` must yield class indices (N,), got {labels.dtype} {tuple(labels.shape)}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= head.out_features:
        raise ValueError(
            f"`model` must have an output for each class, got {head.out_features} and labels from {low} to {high}. "
            "Give it a new last layer with `replace_head`."
        )
    found = torch.cat(features)
    if not bool(torch.isfinite(found).all()):
        raise ValueError("`train` and `val` must give finite features, got NaN or infinity. Look at the images.")
    return found, labels.long()


def _check_batch(batch: Any) -> None:
    """Raise TypeError unless a batch is a pair of images and class indices."""
    rule = "`train` and `val` must yield images and class indices"
    if isinstance(batch, Mapping):
        names = ", ".join(map(str, batch))
        raise TypeError(
            f"{rule}, got a {type(batch).__name__} of {names}. Give the pairs: "
            "((batch['image'], batch['label']) for batch in loader), with your names."
        )
    if not isinstance(batch, list | tuple) or len(batch) < 2 or not isinstance(batch[0], Tensor):
        raise TypeError(f"{rule}, got {type(batch)}. Give a DataLoader whose batches begin with these two.")
    if torch.as_tensor(batch[1]).ndim == 0:
        raise TypeError(f"{rule} by batches, got a single label. Give a DataLoader, not the data set itself.")


def _images(model: nn.Module, head: nn.Linear, batch: Any) -> Tensor:
    """The images of a batch, on the device and in the dtype of the model."""
    images: Tensor = batch[0].to(head.weight.device)
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return images.to(dtypes.pop()) if len(dtypes) == 1 and images.is_floating_point() else images


@torch.no_grad()
def _share_said(model: nn.Module, head: nn.Linear, batch: Any, solved: Tensor) -> float:
    """Share of the images of the first batch to which the model gives the class of the solved layer."""
    with evaluating(model):
        said: Any = model(_images(model, head, batch))
    if not isinstance(said, Tensor) or said.ndim != 2:
        return 0.0
    return float((said.argmax(dim=1) == solved[: len(said)].argmax(dim=1)).double().mean())
