"""One worker of a study: ``python -m tuning_bench.worker STORAGE NAME FOLDER TRIALS EPOCHS SECONDS``.

It starts its server of trials by a trial of its own study first. Then it writes ``FOLDER/ready-PID``, and waits for the
file ``FOLDER/go``.
"""

import os
import sys
import time
from pathlib import Path

from lightning_trainingkit import experiments
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_job import TrialJob
from tuning_bench.toys import RATES, ToyData, ToyModule

HEARTBEAT, GRACE = 1.0, 15.0  # shorter than by default: a death is then seen within one trial


def work(study: Study, folder: Path, epochs: int, seconds: float) -> None:
    """Work on a study until it is done."""
    run_trials(
        study,
        make_source(ToyModule(seconds=seconds), ToyData),
        TrialJob(max_epochs=epochs, wandb="disabled"),
        folder=folder,
        jobs=1,
        accelerator="cpu",
        heartbeat=HEARTBEAT,
        grace=GRACE,
        verbose=False,
    )


def main(storage: str, name: str, where: str, trials: str, epochs: str, seconds: str) -> None:
    experiments.quiet()
    folder = Path(where)
    work(Study(None, "warm-up", Space(RATES), 1), folder / f"warm-up-{os.getpid()}", 1, 0.0)
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    work(Study(storage, name, Space(RATES), int(trials)), folder, int(epochs), float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
