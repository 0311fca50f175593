"""Record the verdicts of a search as a W&B run, which the command center shows beside the trials."""

import hashlib
import os
from pathlib import Path
from typing import Literal, cast

from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["record_search"]


def record_search(found: Verdict, lines: tuple[Verdict, ...], name: str, folder: Path, mode: str) -> None:
    """Record the verdicts in the config of a run in the group of the trials. A second call updates the run.

    Args:
        found: The search, or all steps.
        lines: The tuning playbook's verdicts.
        name: Name of the search.
        folder: Its folder.
        mode: ``"offline"``, ``"online"``, or ``"disabled"``, which records nothing.
    """
    if mode == "disabled":
        return
    import wandb

    from lightning_trainingkit.callbacks.command_center.run import start

    said = {"search": found.line, **{each.step: each.line for each in lines}}
    with start(
        dir=folder,
        mode=cast(Literal["online", "offline"], mode),
        project=os.environ.get("WANDB_PROJECT", "lightning_trainingkit"),
        group=name,
        job_type="search",
        name=name,
        id=hashlib.sha1(f"{folder.resolve()} {name}".encode()).hexdigest()[:12],
        resume="allow",
        config={"search": said},
        reinit="create_new",
        settings=wandb.Settings(silent=True),
    ):
        pass
