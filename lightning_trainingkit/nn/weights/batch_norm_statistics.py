"""Estimate the statistics of BatchNorm layers again, after a change of the weights before them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from lightning_trainingkit.nn.structure.bypass import caches_bypassed
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["estimate_batch_norm", "first_element", "reestimate_batch_norm", "running_batch_norms"]


def reestimate_batch_norm(
    module: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Callable[[Any], Any] | None = None,
    layers: Iterable[nn.Module] | None = None,
) -> None:
    """Set the running statistics of every BatchNorm to the statistics of the data, as averaged weights need it.

    ``mean = sum x / n`` and ``var = sum (x - mean)^2 / (n - 1)`` over all ``n`` values of a channel in all batches. A
    smaller last batch counts for less. During the pass each BatchNorm normalises by its batch, as in training, and all
    other layers are in eval mode. ``torch.optim.swa_utils.update_bn`` instead weights batches equally, leaves the
    spread between their means out of the variance, and has dropout on.

    - **Changes**: only the statistics (``num_batches_tracked`` becomes the number of batches). Nothing changes if
      anything raises. A layer that the forward does not call keeps its statistics.
    - **Ranks**: with ``torch.distributed`` initialised, every rank must call this, with any number of batches. One
      exchange at the end makes the statistics equal. ``SyncBatchNorm`` normalises by its own rank's batch.
    - **Compiled modules** run eagerly.

    Args:
        module: The model. Its weights stay.
        batches: The data, for one pass: tensors, or lists and tuples whose first element is the input, such as a
            ``DataLoader`` gives. Inputs are moved to the layers' device.
        forward: Runs the model on a batch, if ``module(input)`` does not. It gets the whole batch.
        layers: BatchNorms whose statistics change, by default all with running statistics. The others, such as frozen
            ones, normalise by their stored statistics.

    Raises:
        ValueError: If no BatchNorm has running statistics, or the forward calls none. If there is no batch, or a batch
            has only one value per channel.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.BatchNorm1d(1), nn.Dropout())
        >>> reestimate_batch_norm(net, [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]])])
        >>> net[0].running_mean, net[0].running_var
        (tensor([3.]), tensor([2.5000]))

    References:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
        arXiv:1803.05407, section 3.2; Chan et al., "Algorithms for Computing the Sample Variance", 1983.
    """
    if isinstance(module, nn.parallel.DistributedDataParallel):
        module = module.module  # the wrapper synchronises the ranks in each forward
    wanted = running_batch_norms(module)
    if layers is not None:
        chosen = set(layers)
        wanted = {name: layer for name, layer in wanted.items() if layer in chosen}
    found = _over_ranks(estimate_batch_norm(module, wanted, batches, forward=forward))
    if not found.batches:
        raise ValueError("`batches` must give at least one batch, got none. Is the data set empty, or used up?")
    if not found.moments:
        raise ValueError(
            f"`forward` must call a BatchNorm, got one that calls none of: {', '.join(wanted)}. "
            "Pass the module that they belong to."
        )
    for name, moments in found.moments.items():
        _write(wanted[name], moments, found.batches)


class Moments(NamedTuple):
    """Number of values in each channel, their mean, and the sum of their squared deviations from the mean."""

    number: int
    mean: Tensor
    squares: Tensor


@dataclass
class Estimate:
    """Result of a pass over the data: the number of batches, and the moments by layer name."""

    batches: int = 0
    moments: dict[str, Moments] = field(default_factory=dict)

    def add(self, name: str, new: Moments) -> None:
        """Add the moments of further values of a layer (Chan et al.)."""
        old = self.moments.get(name, new)
        if old is not new:
            number, apart = old.number + new.number, new.mean - old.mean
            squares = old.squares + new.squares + apart.square() * (old.number * new.number / number)
            new = Moments(number, old.mean + apart * (new.number / number), squares)
        self.moments[name] = new


def running_batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Find the BatchNorm layers that keep running statistics, by name.

    Raises:
        ValueError: If there is none, or a lazy one without a shape.
    """
    norms = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    found = {name: layer for name, layer in norms.items() if isinstance(layer.running_mean, Tensor)}
    if not found:
        without = f"{len(norms)} without any (track_running_stats=False)" if norms else "no BatchNorm"
        raise ValueError(
            f"`module` must have a BatchNorm with running statistics, got {type(module).__name__} with {without}. "
            "There is nothing to estimate: leave this step out."
        )
    lazy = [
        name for name, layer in found.items() if isinstance(layer.running_mean, Tensor) and is_lazy(layer.running_mean)
    ]
    if lazy:
        raise ValueError(f"`{lazy[0]}` must have a shape, got a lazy layer. Call the model once on a batch before.")
    return found


def first_element(batch: Any) -> Any:
    """Return the input in a batch: the first element of a list or tuple, or a batch of another type as a whole."""
    while isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    return batch


@torch.no_grad()
def estimate_batch_norm(
    module: nn.Module,
    layers: dict[str, _BatchNorm],
    batches: Iterable[Any],
    *,
    forward: Callable[[Any], Any] | None = None,
) -> Estimate:
    """Pass the batches of this rank through ``module`` and measure the inputs of ``layers``. Nothing changes.

    Arguments and errors are as in ``reestimate_batch_norm``. ``layers`` is a dict by name.
    """
    device = next((_statistics(layer)[0].device for layer in layers.values()), None)

    def call(batch: Any) -> Any:
        x = first_element(batch)
        return module(x.to(device) if isinstance(x, Tensor) else x)

    found = Estimate()
    # Compiled code and cached features would miss the hooks that are set here.
    with _normalising_by_batch(module, layers, found), torch.compiler.set_stance("force_eager"), caches_bypassed():
        for batch in batches:
            (forward or call)(batch)
            found.batches += 1
    return found


@contextmanager
def _normalising_by_batch(module: nn.Module, layers: dict[str, _BatchNorm], found: Estimate) -> Iterator[None]:
    """Let each layer normalise by the batch and record the batch's moments, and restore all layers at the end.

    The layer is in eval mode and gets the batch's statistics as its running statistics. In training mode it would
    compute the statistics again, and a SyncBatchNorm would wait for other ranks, which may have fewer batches.
    """
    before = {layer: [each.clone() for each in _statistics(layer)] for layer in layers.values()}
    hooks = [
        layer.register_forward_pre_hook(partial(_measure, name, found), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with evaluating(module):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, values in before.items():
            for statistic, value in zip(_statistics(layer), values, strict=True):
                statistic.copy_(value)


def _measure(name: str, found: Estimate, layer: _BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    x: Tensor = args[0] if args else kwargs["input"]
    if x.ndim < 2:
        return  # the layer itself raises the error
    count = x.numel() // x.shape[1]
    if count < 2:
        raise ValueError(
            f"`batches` must give more than one value per channel, got an input of shape {tuple(x.shape)} at "
            f"{name or type(layer).__name__}. Leave a last batch of one out (`drop_last=True`), or take larger batches."
        )
    x, dims = x.to(torch.promote_types(x.dtype, torch.float32)), [0, *range(2, x.ndim)]
    means = x.mean(dims, keepdim=True)
    # Two passes: `torch.var_mean` takes 2 to 18 times as long on a CPU.
    mean, var = means.flatten(), (x - means).square_().mean(dims)
    for statistic, value in zip(_statistics(layer), (mean, var), strict=True):
        statistic.copy_(value)
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # MPS has no double precision
    found.add(name, Moments(count, mean.to(exact), var.to(exact) * count))


def _statistics(layer: _BatchNorm) -> list[Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return [layer.running_mean, layer.running_var]


def _over_ranks(found: Estimate) -> Estimate:
    """Join the estimates of all ranks in the same order on each rank. Ranks may differ in batches and layers."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return found
    sent = {name: Moments(n, mean.cpu(), squares.cpu()) for name, (n, mean, squares) in found.moments.items()}
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, Estimate(found.batches, sent))
    joined = Estimate(sum(each.batches for each in everyone))
    for each in everyone:
        for name, moments in each.moments.items():
            joined.add(name, moments)
    return joined


@torch.no_grad()
def _write(layer: _BatchNorm, moments: Moments, batches: int) -> None:
    for statistic, value in zip(
        _statistics(layer), (moments.mean, moments.squares / (moments.number - 1)), strict=True
    ):
        statistic.copy_(value)
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.fill_(batches)
