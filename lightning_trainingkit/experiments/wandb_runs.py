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
    """Name the W&B project of all recipes on this data. Each project is a task, each group in it an experiment.

    Example:
        >>> project("fashion-mnist"), project("/data/My: cats")
        ('trainingkit-fashion-mnist', 'trainingkit-My- cats')
    """
    name = re.sub(r"[/\\#?%:]", "-", Path(data).resolve().name)  # signs that W&B refuses
    return f"trainingkit-{name[:100]}"


@contextmanager
def recorded(args: argparse.Namespace, folder: Path, name: str) -> Iterator[list[CommandCenter]]:
    """Record one of several fits as a W&B run in the recipe's group. The run ends with the block.

    Args:
        args: Options of ``argument_parser``.
        folder: Folder of the recipe. Its name is the name of the group.
        name: Name of the run: the setting that varies, such as ``"seed=3"``.

    Yields:
        A list with the callback, empty with ``--wandb disabled``.
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
    pictures: Mapping[str, Path] | None = None,
) -> None:
    """Record the scores of an evaluation as a W&B run of the recipe's group, on rank 0. A second call updates the run.

    Args:
        args: Options of ``argument_parser``.
        folder: Folder of the recipe, to which W&B writes.
        job_type: Kind of the evaluation: ``eval``, ``tta``, ``ensemble``.
        name: Name of the run: the setting that varies.
        values: Numbers, for the summary.
        config: Settings in which the runs differ, such as the number of members.
        pictures: Files of pictures by name.
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
        if pictures:
            run.log({key: wandb.Image(str(path)) for key, path in pictures.items()})
        run.summary.update({key: value for key, value in values.items() if isinstance(value, int | float)})


def center(args: argparse.Namespace, folder: Path) -> list[str]:
    """The line with the command that opens the page of the runs in ``folder``, empty with ``--wandb disabled``."""
    return [] if args.wandb == "disabled" else [f"Center: trainingkit dashboard {shlex.quote(str(folder))} --open"]
