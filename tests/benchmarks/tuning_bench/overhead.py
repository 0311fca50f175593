"""What a trial costs beside its training: its process, ask and tell, checkpoints and reports.

One worker, one trial after the other, each of one epoch on 64 points. The overhead is the time from the end of one
trial to the end of the next, less a plain fit of the same module in this process. Plain fits are timed before and after
the trials. The first trial starts the server, and is listed apart.
"""

import random
import statistics
import tempfile
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L

from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from tuning_bench.rows import row
from tuning_bench.toys import RATES, ToyData, ToyModule
from tuning_bench.worker import work

GOALS = {"memory": 0.3, "journal": 0.3, "PostgreSQL": 1.0}


def rows(args: Any) -> list[dict]:
    """The overhead for each storage, in the form of `results.json`."""
    from tests import postgres

    found = []
    for where, goal in GOALS.items():
        with tempfile.TemporaryDirectory() as folder, postgres.running() if goal == 1.0 else nullcontext() as server:
            storage = {"memory": None, "journal": Path(folder, "study.log")}.get(where, getattr(server, "url", None))
            study = Study(storage, "overhead", Space(RATES), args.trials_timed + 1)
            plain = [fit() for _ in range(6)][1:]
            begun = time.time()
            work(study, Path(folder), 1, 0.0)
            plain += [fit() for _ in range(5)]
            ends = sorted(each.datetime_complete.timestamp() for each in study.optuna.trials)
            inside = [each.outcome["seconds"] for each in study.results()][1:]
        usual = statistics.median(plain)
        cycles = [later - earlier for earlier, later in pairwise(ends)]
        cost = [cycle - usual for cycle in cycles]
        low, high = interval(cost, args.seed)
        middle = statistics.median(cost)
        found.append(
            row(f"{where}: overhead of a trial, s", middle, usual, low=low, high=high, goal=goal, ok=middle <= goal)
        )
        apart = [cycle - own for cycle, own in zip(cycles, inside, strict=True)]
        found.append(row(f"{where}: of it outside of the trial's own build and fit, s", statistics.median(apart)))
        found.append(row(f"{where}: first trial, with the server's start where it is new, s", ends[0] - begun))
    return found


def fit() -> float:
    """Seconds of a plain fit."""
    start = time.perf_counter()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tempfile.gettempdir(),
    )
    trainer.fit(_Plain(), ToyData())
    return time.perf_counter() - start


class _Plain(ToyModule):
    """The module without its note for the chaos."""

    def on_train_start(self):
        """Write nothing."""


def interval(values: list[float], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(1000))
    return medians[25], medians[974]
