"""Reduce the records of layers over ranks, bring them to the host in one copy, and summarise them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit.functional import statistics
from lightning_trainingkit.functional.statistics import ActivationSummary
from lightning_trainingkit.nn.diagnostics.layer_record import PLACES, LayerRecord

__all__ = ["Reduce", "summarise"]

Reduce = Callable[[Tensor, str], Any]
"""Reduces a tensor over ranks in place, by ``"sum"``, ``"min"`` or ``"max"``."""


def summarise(records: Sequence[LayerRecord], windows: int, reduce: Reduce | None) -> dict[str, ActivationSummary]:
    """Summarise the layers that were called.

    Args:
        records: The records, in the same order on all ranks.
        windows: Number of windows in which a dead unit was always zero.
        reduce: Reduces over ranks. All ranks must call this function then.
    """
    if reduce is not None:
        _equal_sizes(records, reduce)
        _equal_ranges(records, reduce)
    device, dtype = records[0].device, records[0].dtype
    sums = [torch.cat([part.to(device, dtype).flatten() for part in _sums(record)]) for record in records]
    alive = [place.alive_in.to(device, dtype) for record in records for place in record.places]
    parts = [torch.cat(sums), torch.cat([torch.zeros(0, device=device, dtype=dtype), *alive])]
    if reduce is not None:
        reduce(parts[0], "sum")
        reduce(parts[1], "max")
    ends = torch.cat([torch.cat([*record.extremes[None], *record.range[None]]).to(device) for record in records])
    host = iter(
        torch.split(torch.cat([*parts, ends]).cpu().double(), [*map(len, [*sums, *alive]), *[4] * len(records)])
    )
    sums, alive = [next(host) for _ in sums], [next(host) for _ in alive]
    found = {}
    for record, own_sums, own_ends in zip(records, sums, host, strict=True):
        own_alive = [alive.pop(0) for _ in record.places]
        if own_sums[0] > 0:
            found[record.layer.name] = _summary(record, own_sums, own_ends, torch.cat(own_alive), windows)
    return found


def _sums(record: LayerRecord) -> list[Tensor]:
    known = torch.tensor(record.host, dtype=record.dtype)
    return [known, record.sums, record.counts, *(place.positions for place in record.places)]


def _summary(record: LayerRecord, sums: Tensor, ends: Tensor, alive_in: Tensor, windows: int) -> ActivationSummary:
    calls, images, elements, sampled, total, squares, saturated, positive = sums[:8]
    counts = sums[8 : 8 + record.bins]
    widths = [place.positions.shape[1] for place in record.places]
    of_places = torch.split(sums[8 + record.bins :], [3 * width for width in widths])
    positions = torch.cat([each.view(3, -1) for each in of_places], 1)
    positions = positions[:, positions[0] > 0]
    mean, std = statistics.mean_and_std(elements, total, squares)
    # The squares of all elements are added up in float32: too coarse beside a large mean, and they may overflow.
    if not std.isfinite() or std < 0.01 * mean.abs():
        std = statistics.mean_and_std(*positions.sum(1))[1]
    low, high, *known_range = ends
    first, last = statistics.histogram_range(*known_range)
    edges = statistics.histogram_edges(record.bins, float(first), float(last))
    if low.isfinite() and high.isfinite():
        edges[0], edges[-1] = torch.minimum(edges[0], low), torch.maximum(edges[-1], high)
    return ActivationSummary(
        calls=int(calls),
        images=int(images),
        mean=float(mean),
        std=float(std),
        min=float(low),
        max=float(high),
        saturated=float(saturated / sampled) if record.layer.saturation else None,
        dead=float(statistics.dead_share(alive_in > record.window - windows)),
        positive=float(positive / sampled),
        between_images=float(statistics.between_images(*positions)),
        finite=math.isfinite(low) and math.isfinite(high),
        counts=[int(each) for each in counts],
        edges=edges.tolist(),
    )


def _equal_sizes(records: Sequence[LayerRecord], reduce: Reduce) -> None:
    """Give each rank the buffers that any rank has, so that their sizes agree."""
    sizes = torch.zeros(len(records), PLACES, 3, dtype=torch.long)
    for record, row in zip(records, sizes, strict=True):
        for place, cell in zip(record.places, row, strict=False):
            cell.copy_(torch.tensor([1, len(place.alive_in), place.positions.shape[1]]))
    shared = sizes.to(records[0].device)
    reduce(shared, "max")
    for record, row in zip(records, shared.tolist(), strict=True):
        for number, (exists, units, positions) in enumerate(row):
            if exists:
                record.place_at(number, units, positions)


def _equal_ranges(records: Sequence[LayerRecord], reduce: Reduce) -> None:
    """Give each rank the extremes of all ranks, and the histogram's range of all ranks."""
    device = records[0].device
    both = torch.stack([torch.stack([record.extremes, record.range]).to(device) for record in records])
    lows, highs = both[..., 0].contiguous(), both[..., 1].contiguous()
    lows[lows.isnan()], highs[highs.isnan()] = -math.inf, math.inf  # a reduction may lose NaN
    reduce(lows, "min")
    reduce(highs, "max")
    for record, low, high in zip(records, lows, highs, strict=True):
        old = statistics.histogram_range(*record.range)
        record.extremes.copy_(torch.stack([low[0], high[0]]))
        record.range.copy_(torch.stack([low[1], high[1]]))
        record.counts = statistics.rebin(record.counts, *old, *statistics.histogram_range(*record.range))
