"""The table of findings that HealthReport prints."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from lightning_trainingkit.nn.diagnostics.finding import Finding

__all__ = ["findings_table"]

_COLOURS = {"harmful": "red", "wrong": "yellow", "advice": "cyan"}


def findings_table(findings: Sequence[Finding], when: str, notes: Sequence[str] = ()) -> Table:
    """Make the table: one row a finding, most likely cause first.

    Args:
        findings: The findings.
        when: Point of the training, such as ``"after epoch 1 (step 120)"``.
        notes: What could not be checked, for the caption.
    """
    if not findings:
        table = Table(title=f"Health report {when}: nothing wrong", box=None, title_justify="left", show_header=False)
        for note in notes:
            table.add_row(escape(note))
        return table
    alarms = sum(finding.level != "advice" for finding in findings)
    title = f"Health report {when}: " + ("nothing wrong" if not alarms else f"{alarms} finding{'s' * (alarms > 1)}")
    caption = escape("\n".join(notes)) or None
    table = Table(title=title, box=SIMPLE, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("kind", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("what was seen, and what to do")
    for finding in findings:
        kind = f"[{_COLOURS[finding.level]}]{finding.kind}[/]"
        table.add_row(kind, escape(finding.where), f"{escape(finding.message)}\n[bold]{escape(finding.advice)}[/]")
    return table
