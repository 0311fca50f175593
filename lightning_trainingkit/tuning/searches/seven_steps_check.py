"""Refuse before step 1 trains what only a later step would refuse."""

from collections.abc import Mapping
from typing import Any

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import resolve_mode
from lightning_trainingkit.tuning.searches.samplers import Sampler, check_sampler, choose_pruner
from lightning_trainingkit.tuning.trials.trial_callbacks import check_callbacks
from lightning_trainingkit.tuning.trials.trial_devices import TrialDevices
from lightning_trainingkit.tuning.trials.trial_job import TrialJob

__all__ = ["check_later_steps"]


def check_later_steps(
    coarse: tuple[int, int],
    rounds: tuple[int, int],
    sampler: Sampler,
    search: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Check the arguments of steps 4 and 5.

    Args:
        coarse: Trials and epochs of step 4.
        rounds: Trials and epochs of a round of step 5.
        sampler: Sampler of step 5.
        search: Arguments of each search.
        run: Arguments of ``Search.run``.

    Raises:
        ImportError: If the sampler needs a package that is not installed.
        TypeError: If an argument has another type, or a callback cannot be pickled.
        ValueError: If an argument has a wrong value.
    """
    for part, numbers in (("coarse", coarse), ("round", rounds)):
        for what, value in zip(("trials", "epochs"), numbers, strict=True):
            least = 2 if (part, what) == ("round", "trials") else 1  # the best so far again, and a new one
            step = 4 if part == "coarse" else 5
            _check.integer(f"{part}_{what}", value, f"Give the {what} of step {step}.", least=least)
    check_sampler(sampler)
    if sampler == "grid":
        raise ValueError(
            "`sampler` must choose other points in each round, got 'grid', which repeats its own. Take 'tpe', or "
            "`refine_search` with sampler='grid'."
        )
    choose_pruner(search["pruner"], rounds[1])
    TrialJob(
        max_epochs=rounds[1],
        monitor=search["monitor"],
        mode=resolve_mode(search["monitor"], search["mode"]),
        trainer_options=dict(search["trainer_options"] or {}),
        callbacks=check_callbacks(search["callbacks"]),
        wandb=search["wandb"],
    ).pickled()
    TrialDevices(run["accelerator"], run["devices"], run["jobs"])
    _check.flag("verbose", run["verbose"])
