"""``trainingkit check``: the lecture's steps 1 to 3 on a project's own module and data."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from lightning_trainingkit.commands.load import load

__all__ = ["add_check"]


def add_check(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "check",
        help="check a module before its training: initial loss, small sample, learning rate",
        description="The lecture's steps before a training: check the initial loss, overfit a small sample, find a "
        "learning rate. Module and data are not changed. Nothing is written without --output or --wandb. Exit code 1 "
        "if a step fails.",
        epilog="Arguments of the classes are given as in LightningCLI: --module.lr 0.1 --data.batch_size 32 "
        "--trainer.precision bf16-mixed.",
        allow_abbrev=False,
    )
    parser.add_argument("module", metavar="MODULE:CLASS", help="a LightningModule, such as my_file.py:MyModule")
    parser.add_argument(
        "--data",
        metavar="MODULE:CLASS",
        help="a LightningDataModule, or a function that returns a train loader (default: the module's own loader)",
    )
    parser.add_argument(
        *("-c", "--config"), type=Path, action="append", default=[], metavar="FILE", help="a file of LightningCLI"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3], help="steps to run (default: 1 2 3)"
    )
    parser.add_argument(
        "--expected", type=float, metavar="LOSS", help="initial loss to expect, for a loss that step 1 does not know"
    )
    parser.add_argument("--output", type=Path, help="new folder for results.json and the picture of step 3")
    parser.add_argument(
        "--wandb", choices=["offline", "online"], help="record the verdicts as a run, which a command center shows"
    )
    parser.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    kind = load(args.module, "MODULE:CLASS")  # before any import of Lightning by the kit
    data = load(args.data, "--data") if args.data else None

    from lightning_trainingkit import experiments
    from lightning_trainingkit._lightning import rank_zero_only
    from lightning_trainingkit.commands.build import build
    from lightning_trainingkit.commands.steps import run_steps
    from lightning_trainingkit.commands.verdicts import print_verdicts, record_verdicts, write_verdicts

    if args.output is not None and args.output.exists() and any(args.output.iterdir()):
        raise ValueError(f"`--output` must be new or empty, got {args.output}. Name another folder.")
    experiments.quiet()
    built = build(kind, data, args.others, args.config)
    folder = experiments.open_folder("check", args.output) if args.output else None
    verdicts = run_steps(built, sorted(set(args.steps)), args.expected)
    failed = any(verdict.verdict == "fail" for verdict in verdicts)
    if getattr(rank_zero_only, "rank", 0) == 0:
        seconds = time.perf_counter() - start
        title = f"{kind.__name__}: {'a step fails' if failed else 'no step fails'} ({seconds:.0f} s)"
        print_verdicts(title, verdicts, built.left_out)
        if folder is not None:
            write_verdicts(folder, args, built.settings, verdicts, seconds)
        if args.wandb:
            record_verdicts(args, kind.__name__, built.settings, verdicts)
        sys.stdout.flush()
    return int(failed)
