"""Record the verdicts of a search as a W&B run, which the command center shows beside the trials."""

import hashlib
from typing import Literal, cast

from lightning_trainingkit.tuning.searches.search_result import SearchResult

__all__ = ["record_search"]


def record_search(found: SearchResult, mode: str, project: str) -> None:
    """Record the verdicts in the config of a run in the group of the trials. A second call updates the run.

    Args:
        found: The search.
        mode: ``"offline"``, ``"online"``, or ``"disabled"``, which records nothing.
        project: Project in W&B.
    """
    if mode == "disabled":
        return
    import wandb

    from lightning_trainingkit.callbacks.command_center.run import start

    lines = {"search": found.line, **{each.step: each.line for each in found.lines}}
    with start(
        dir=found.folder,
        mode=cast(Literal["online", "offline"], mode),
        project=project,
        group=found.name,
        job_type="search",
        name=found.name,
        id=hashlib.sha1(f"{found.folder.resolve()} {found.name}".encode()).hexdigest()[:12],
        resume="allow",
        config={"search": lines},
        reinit="create_new",
        settings=wandb.Settings(silent=True),
    ):
        pass
