"""Print, write and record the verdicts of the steps."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lightning_trainingkit import experiments
from lightning_trainingkit.commands.steps import TITLES
from lightning_trainingkit.dashboards.printable import printable
from lightning_trainingkit.tuning import Verdict

__all__ = ["print_verdicts", "record_verdicts", "write_verdicts"]

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}
_MOST = 3  # reasons


def print_verdicts(title: str, verdicts: Sequence[Verdict], left_out: Sequence[str] = ()) -> None:
    """Print a table with a row for each step: its verdict, what was measured, and what to do."""
    table = Table(title=title, box=SIMPLE, title_justify="left")
    table.add_column("step", max_width=26)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what was measured, why, and what to do")
    said = ""
    for verdict in verdicts:
        text = Text(verdict.verdict, style=f"bold {_COLOURS[verdict.verdict]}")
        parts = [Text("As above.")] if verdict.message == said else _parts(verdict)
        table.add_row(TITLES[verdict.step], text, Group(*parts))
        said = verdict.message
    console = Console()
    console.print(table)
    if left_out:
        console.print(f"Left out, since a step is a short trial: {', '.join(left_out)}.", highlight=False)


def _parts(verdict: Verdict) -> list[Text]:
    """The message, reasons that it does not hold, the advice, and remarks."""
    parts = [Text(printable(verdict.message))]
    for finding in verdict.findings[:_MOST]:
        if finding.message not in verdict.message:
            advice = "" if finding.advice == verdict.advice else f" {finding.advice}"
            parts.append(Text(printable(f"{finding.kind} in {finding.where}: {finding.message}{advice}")))
    if verdict.advice:
        parts.append(Text(printable(verdict.advice), style="bold"))
    return parts + [Text(printable(note), style="dim") for note in verdict.notes]


def write_verdicts(
    folder: Path, args: argparse.Namespace, settings: Mapping[str, Any], verdicts: Sequence[Verdict], seconds: float
) -> None:
    """Write ``results.json``, and a picture for each step that draws one."""
    config = {
        "module": args.module,
        "data": args.data,
        **{f"module.{name}": str(each) for name, each in settings.items()},
    }
    rows = [
        {
            **{name: getattr(verdict, name) for name in ("step", "verdict", "message", "advice", "value")},
            "findings": [vars(finding) for finding in verdict.findings],
            "notes": list(verdict.notes),
        }
        for verdict in verdicts
    ]
    metrics = {verdict.step: verdict.value for verdict in verdicts}
    experiments.write_results(folder, config, metrics, rows, seconds)
    files = [folder / "results.json"]
    for verdict in verdicts:
        draw = getattr(verdict, "save_picture", None)
        if draw is not None:
            files.append(folder / f"{verdict.step}.png")
            draw(files[-1])
    print(printable(f"Files: {', '.join(map(str, files))}"))


def record_verdicts(
    args: argparse.Namespace, name: str, settings: Mapping[str, Any], verdicts: Sequence[Verdict]
) -> None:
    """Record the verdicts in the config of a W&B run. ``WANDB_PROJECT`` names the project, as for ``CommandCenter``."""
    import wandb

    from lightning_trainingkit.callbacks.command_center.run import start

    with start(
        dir=args.output or Path.cwd(),
        mode=cast(Literal["offline", "online"], args.wandb),
        project=os.environ.get("WANDB_PROJECT", "lightning_trainingkit"),
        job_type="check",
        name=name,
        config={**settings, "check": {verdict.step: verdict.line for verdict in verdicts}},
        settings=wandb.Settings(silent=True),
        reinit="create_new",  # a CommandCenter of this process may have left its run open
    ) as run:
        where = run.url if args.wandb == "online" else Path(run.dir).parent
    print(printable(f"Recorded in {where}"))
