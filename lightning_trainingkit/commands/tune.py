"""``trainingkit tune``: the lecture's seven steps on a project's own module and data, on one machine or on many."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lightning_trainingkit.commands.load import load
from lightning_trainingkit.dashboards.printable import printable

__all__ = ["add_tune"]


def add_tune(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "tune",
        help="choose the hyperparameters of a module: all seven steps",
        description="The lecture's seven steps: check the initial loss, overfit a small sample, find a learning rate, "
        "search coarsely, refine the search, look at the curves, and refine again until nothing is gained. The same "
        "command in a second terminal, or with one database on another machine, joins the search. After Ctrl-C, the "
        "same command goes on. Exit code 1 if a step fails.",
        epilog="Arguments of the classes are given as in LightningCLI: --module.width 64 --data.batch_size 32 "
        "--trainer.precision bf16-mixed.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "module", metavar="MODULE:CLASS", nargs="?", help="a LightningModule, such as my_file.py:MyModule"
    )
    parser.add_argument(
        "--data", metavar="MODULE:CLASS", help="a LightningDataModule (default: the module's own loaders)"
    )
    parser.add_argument(
        *("-c", "--config"), type=Path, action="append", default=[], metavar="FILE", help="a file of LightningCLI"
    )
    parser.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="YAML file with ranges and choices by name (default: learning rate and weight decay)",
    )
    parser.add_argument(
        "--storage", metavar="URL", help="a database, such as postgresql://user@host/name, or a file (default: a file)"
    )
    parser.add_argument("--name", help="of the search in the storage (default: the name of the class)")
    parser.add_argument(
        "--trials", type=int, default=64, metavar="N", help="trials over all searches and workers (%(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=10, metavar="N", help="of a trial in step 5; step 4 has at most 3 (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="trials at once (default: one, or as many as GPUs)")
    parser.add_argument("--monitor", default="val/loss", metavar="NAME", help="metric of validation (%(default)s)")
    parser.add_argument(
        "--mode",
        choices=["min", "max"],
        help="better end of the metric (default: min; a score such as val/acc needs it)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the search (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for all files (default: runs/NAME)")
    parser.add_argument(
        "--wandb", choices=["offline", "online", "disabled"], help="record the trials (default: WANDB_MODE, or offline)"
    )
    parser.add_argument("--report", metavar="STUDY", help="print what the search of this name has found, train nothing")
    parser.set_defaults(run=_tune)


def _tune(args: argparse.Namespace) -> int:
    if args.report is not None:
        return _report(args)
    if args.module is None:
        raise ValueError("`MODULE:CLASS` must be given, got none. Name a LightningModule, or a search by --report.")
    kind = load(args.module, "MODULE:CLASS")  # before any import of Lightning by the kit

    from lightning_trainingkit import experiments
    from lightning_trainingkit.commands.tune_source import command_source
    from lightning_trainingkit.functional.metric_name import named_mode, resolve_mode
    from lightning_trainingkit.tuning import seven_steps
    from lightning_trainingkit.tuning.trials.space import Space

    experiments.quiet()
    if args.mode is None and named_mode(args.monitor) == "max":
        raise ValueError(
            f"`--mode` must be given for {args.monitor!r}, which by its name is a score, got none. Add --mode max if "
            "larger is better, --mode min if smaller is."
        )
    if args.space is not None and not args.space.is_file():
        raise ValueError(f"`--space` must be a YAML file that exists, got {args.space}. Name another.")
    space = Space.from_yaml(args.space) if args.space is not None else None
    source, built = command_source(args.module, args.data, args.others, args.config, space)
    if built.left_out:
        print(f"Left out, since a trial has its own: {', '.join(built.left_out)}.")
    options = dict(built.trainer_options)
    devices, accelerator = options.pop("devices", "auto"), options.pop("accelerator", "auto")
    name = args.name or getattr(kind, "__name__", "search")
    mode = resolve_mode(args.monitor, args.mode)
    try:
        found = seven_steps(
            source,
            space=space,
            max_trials=args.trials,
            coarse_trials=max(1, min(16, args.trials // 2)),
            coarse_epochs=min(3, args.epochs),
            round_epochs=args.epochs,
            monitor=args.monitor,
            mode=mode,
            storage=args.storage,
            name=name,
            output=args.output,
            jobs=args.jobs,
            devices=1 if devices == "auto" else devices,
            accelerator=accelerator,
            seed=args.seed,
            trainer_options=options,
            wandb=args.wandb,
        )
    except KeyboardInterrupt:
        print("\nStopped. The running trials wait in the storage: the same command goes on.", file=sys.stderr)
        return 130
    except RuntimeError as error:  # all trials fail
        for line in f"trainingkit tune: {error}".splitlines():
            print(printable(line), file=sys.stderr)
        return 1
    return _said(found)


def _said(found: Any) -> int:
    """Print the answer, the files, and the command that trains the best configuration."""
    print(printable(found.line))
    names = ("report.md", "best.yaml", "search.png", "dashboard.html")
    files = [found.folder / name for name in names if (found.folder / name).exists()]
    print(printable(f"Files: {', '.join(map(str, files))}"))
    for note in found.notes:
        print(printable(note))
    if found.command:
        print("Train the best configuration to the end:")
        print(printable(found.command))
    sys.stdout.flush()
    return int(found.verdict == "fail")


def _report(args: argparse.Namespace) -> int:
    """Print the report of a search, in Markdown."""
    from lightning_trainingkit.tuning.searches.load_report import load_report

    if args.others or args.module is not None:
        given = args.module or args.others[0]
        raise ValueError(f"`--report` must stand without a module and its arguments, got {given}. Leave them out.")
    folder = args.output or Path("runs", args.report)
    for line in load_report(args.storage or folder / "study.log", args.report, folder).report.splitlines():
        print(printable(line))
    return 0
