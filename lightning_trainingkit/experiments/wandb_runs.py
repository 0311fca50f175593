"""W&B runs of recipes that train or evaluate several times: project = task, group = experiment, name = what varies."""

import argparse
import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from lightning_trainingkit._lightning import rank_zero_only
from lightning_trainingkit.callbacks.command_center.command_center import CommandCenter

__all__ = ["center", "project", "record", "recorded"]


def project(data: str) -> str:
    """W&B project of all recipes on this data: a task each, in which experiments are groups.

    Example:
        >>> project("fashion-mnist"), project("/data/My: cats")
        ('trainingkit-fashion-mnist', 'trainingkit-My- cats')
    """
    name = re.sub(r"[/\\#?%:]", "-", Path(data).resolve().name)  # signs that W&B refuses
    return f"trainingkit-{name[:100]}"


@contextmanager
def recorded(args: argparse.Namespace, folder: Path, name: str) -> Iterator[list[CommandCenter]]:
    """Record one fit of several as a W&B run, which ends with the block: in the recipe's group, named by what varies.

    Args:
        args: Options of ``argument_parser``.
        folder: Folder of the recipe, whose name is the group's.
        name: What varies between the runs, such as ``"seed=3"``.

    Yields:
        The callback, in a list that is empty with ``--wandb disabled``.
    """
    os.environ |= {"WANDB_MODE": args.wandb, "WANDB_PROJECT": project(args.data), "WANDB_SILENT": "true"}
    callbacks = [] if args.wandb == "disabled" else [CommandCenter(folder.name, name=name)]
    code = 1
    try:
        yield callbacks
        code = 0
    finally:
        for callback in callbacks:
            callback.finish(code)


@rank_zero_only
def record(
    args: argparse.Namespace,
    folder: Path,
    job_type: str,
    name: str,
    values: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Record what an evaluation scored as a W&B run of the recipe's group, on rank 0. Done again it is the same run.

    Args:
        args: Options of ``argument_parser``.
        folder: Folder of the recipe, to which W&B writes.
        job_type: What was done: ``eval``, ``tta``, ``ensemble``.
        name: What varies between the runs.
        values: Numbers, for the summary.
        config: What the runs differ in, such as the number of members.
    """
    if args.wandb == "disabled":
        return
    import wandb

    from lightning_trainingkit.callbacks.command_center.run import start

    with start(
        dir=folder,
        mode=cast(Literal["online", "offline"], args.wandb),
        project=project(args.data),
        group=folder.name,
        job_type=job_type,
        name=name,
        id=hashlib.sha1(f"{folder.resolve()} {job_type} {name}".encode()).hexdigest()[:12],
        resume="allow",
        config=dict(config or {}),
        reinit="create_new",
        settings=wandb.Settings(silent=True),
    ) as run:
        run.summary.update({key: value for key, value in values.items() if isinstance(value, int | float)})


def center(args: argparse.Namespace, folder: Path) -> list[str]:
    """The line that says how to open the command center of the runs in ``folder``; none with ``--wandb disabled``."""
    return [] if args.wandb == "disabled" else [f"Center: trainingkit dashboard {shlex.quote(str(folder))} --open"]
