"""The report of an initialisation, as data and as a table."""

from dataclasses import dataclass

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table
from torch import nn

__all__ = ["LayerInit", "other_matrices", "table"]


@dataclass(frozen=True)
class LayerInit:
    """One row of the report of `InitOverride`: the initialisation of one layer.

    Args:
        layer: Name of the layer.
        scheme: Scheme, or name of the function, that filled the weight; ``copy of ...`` for a frozen copy.
        activation: Activation after the layer. None if it is unknown and no gain was needed.
        gain: Factor on the weight. None for schemes without a gain.
        std_before: Standard deviation of the weight before the initialisation.
        std_after: Standard deviation of the weight before training, after all hooks that build the model.
    """

    layer: str
    scheme: str
    activation: str | None
    gain: float | None
    std_before: float
    std_after: float


def other_matrices(module: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    """Name the parameters with two or more dimensions outside of all ``layers``."""
    inside = tuple(f"{name}." for name in layers)
    return [name for name, p in module.named_parameters() if p.dim() > 1 and not name.startswith(inside)]


def table(report: list[LayerInit], frozen: list[str], rest: list[str]) -> Table:
    """Lay out a report. Its caption names the frozen layers and the other matrices that did not change."""
    kinds = {"being frozen": frozen, "being no layer's weight": rest}
    caption = "\n".join(f"Left as they were, {kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    lines = Table(
        title="InitOverride", caption=caption and escape(caption), box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0)
    )
    lines.add_column("Layer", overflow="fold")
    for heading in ("Scheme", "Activation"):
        lines.add_column(heading, no_wrap=True)
    for heading in ("Gain", "Std\nbefore", "Std\nafter"):
        lines.add_column(heading, justify="right")
    for row in report:
        gain = "-" if row.gain is None else f"{row.gain:.3f}"
        names = (row.layer, row.scheme, row.activation or "unknown")
        lines.add_row(*map(escape, names), gain, f"{row.std_before:.3g}", f"{row.std_after:.3g}")
    return lines
