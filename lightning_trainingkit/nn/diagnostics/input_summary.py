"""Summarise the input tensors of a batch, and find those that are not centred."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_trainingkit.nn.diagnostics.finding import Finding

__all__ = ["InputSummary", "input_findings", "summarise_input"]


@dataclass(frozen=True)
class InputSummary:
    """Size and centre of one input tensor.

    Args:
        name: Its place in the batch, such as ``batch[0]``.
        mean: Mean of all values.
        std: Standard deviation of all values.
        least: Smallest value.
        most: Largest value.
        is_image: Whether it has four dimensions.
    """

    name: str
    mean: float
    std: float
    least: float
    most: float
    is_image: bool = False


def summarise_input(batch: object, target: Tensor | None = None) -> list[InputSummary]:
    """Summarise the tensors of a batch that have a dimension besides the batch's, without the target.

    Args:
        batch: A tensor, or lists, tuples and dicts of tensors.
        target: The target, which is left out.

    Example:
        >>> summarise_input([torch.tensor([[0.0, 2.0]]), torch.tensor([1])])
        [InputSummary(name='batch[0]', mean=1.0, std=1.0, least=0.0, most=2.0, is_image=False)]
    """
    found = []
    for name, value in _tensors(batch, "batch"):
        if value.dim() < 2 or not value.numel() or value.dtype in (torch.bool, torch.int64):
            continue
        if target is not None and value.shape == target.shape and torch.equal(value.to(target), target):
            continue
        if value.is_complex() or not (value.is_floating_point() or value.dim() > 2):
            continue
        x = value.detach().float()
        std, mean = torch.std_mean(x, correction=0)
        centre, spread, least, most = torch.stack([mean, std, x.min(), x.max()]).tolist()
        found.append(InputSummary(name, centre, spread, least, most, x.dim() == 4))
    return found


def input_findings(inputs: Iterable[InputSummary]) -> Iterator[Finding]:
    """Yield a finding of the kind ``input_not_centred`` for each input far from mean 0 and std 1."""
    for each in inputs:
        if not all(map(math.isfinite, (each.mean, each.std))) or each.std == 0:
            continue
        centre = abs(each.mean) / each.std
        if centre > 0.5 or not 0.1 < each.std < 10:
            yield Finding.of(
                "input_not_centred",
                each.name,
                centre,
                f"The input {each.name} has mean {each.mean:.3g} and std {each.std:.3g}, from {each.least:.3g} to "
                f"{each.most:.3g}.",
                f"Subtract the mean and divide by the std: `v2.Normalize([{each.mean:.3g}], [{each.std:.3g}])`, with "
                "one value for each channel."
                if each.is_image
                else "Subtract the mean and divide by the std: `(x - mean) / std`, with one value for each feature.",
            )


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _tensors(part, f"{name}[{index}]")
