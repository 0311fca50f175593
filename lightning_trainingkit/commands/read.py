"""``trainingkit read``: name the shape of each run's curves, and say what to do."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.printable import printable

__all__ = ["add_read"]


def add_read(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "read",
        help="name the shape of each run's curves, and say what to do",
        description="Name the shape of each run's loss and accuracy curves, and say what to do: a line for each run of "
        "W&B, CSVLogger or TensorBoard below some folders.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder with runs")
    parser.set_defaults(run=_read)


def _read(args: argparse.Namespace) -> int:
    from lightning_trainingkit.dashboards.read.gather import gather
    from lightning_trainingkit.tuning import read_curves

    runs, skipped = gather(args.folders)
    for run in runs:
        name = run.name or run.id
        try:
            reading = read_curves(run)
        except ValueError as error:
            print(printable(f"{name}: not read. {error}"))
        else:
            shape = reading.shape.replace("_", " ")
            print(printable(f"{name}: {shape}. {reading.message} {reading.advice}".rstrip()))
    for file, why in skipped.items():
        print(printable(f"skipped {file}: {why}"), file=sys.stderr)
    if not runs:
        raise ValueError(
            f"`DIR` must hold a run, got {', '.join(map(str, args.folders))}. Name the folder of a logger."
        )
    return 0
