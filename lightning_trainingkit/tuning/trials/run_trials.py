"""Run the trials of a study in processes of their own, together with all other workers of the study."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_devices import TrialDevices
from lightning_trainingkit.tuning.trials.trial_job import TrialJob
from lightning_trainingkit.tuning.trials.trial_table import TrialTable
from lightning_trainingkit.tuning.trials.worker import Worker
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["run_trials"]


def run_trials(
    study: Study,
    source: Source,
    job: TrialJob,
    *,
    folder: str | Path,
    jobs: int | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    stop: Callable[[Study], bool | None] | None = None,
    heartbeat: float = 5.0,
    grace: float = 30.0,
    verbose: bool = True,
) -> None:
    """Work on a study until all its trials are done, also those that other workers run now.

    Each attempt trains in processes of its own, one for each device. Ctrl-C kills them, gives their trials back to the
    study, and raises KeyboardInterrupt: the same program goes on later, from the last checkpoints.

    Args:
        study: The study.
        source: Builds the module and the data.
        job: What every trial does.
        folder: Folder for checkpoints and W&B runs. Workers on several machines need a shared one, or retries begin
            again.
        jobs: Trials at once, by default one, or with GPUs as many as they have room for.
        devices: Devices of each trial.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"`` or another one of Lightning's.
        stop: Asked before each trial is started. True starts no more, and the running ones finish. None starts none
            now, and is asked again: other workers may still run trials.
        heartbeat: Seconds between the heartbeats of this worker.
        grace: Seconds without a heartbeat after which another worker counts as dead.
        verbose: Show the progress.

    Raises:
        WrongSetupError: If the first trial shows what no hyperparameters would mend, such as a metric that is never
            logged. The next call with this name begins again, with other settings too.
        RuntimeError: If the first trials all fail, with the traceback of the first.
        ValueError: If the space has names that the module and the data do not have.

    Example:
        >>> from lightning_trainingkit.tuning.trials.space import Space
        >>> study = Study(None, "demo", Space({"width": [1, 2]}), trials=2)
        >>> source = Source(dict, given={}, names=("lr",), describe="nothing")
        >>> run_trials(study, source, TrialJob(max_epochs=1), folder="runs/demo")
        Traceback (most recent call last):
        ValueError: `space` must name hyperparameters of the module or the data, got 'width'. There are: lr.
    """
    study.space.check_names(source.names)
    if study.mode != job.mode:
        raise ValueError(f"`mode` must be that of the study, {study.mode!r}, got {job.mode!r}. Give both the same.")
    _check.number("heartbeat", heartbeat, "5 suits most networks.", above=0)
    _check.number("grace", grace, "Give several heartbeats.", least=2 * heartbeat)
    worker = Worker(study, source, job, Path(folder), TrialDevices(accelerator, devices, jobs), heartbeat, grace)
    study.check_job({"monitor": job.monitor, "max_epochs": job.max_epochs})
    with TrialTable(study, job.monitor, job.max_epochs) if verbose else nullcontext() as table:
        try:
            worker.run(stop or (lambda _: False), table)
        except WrongSetupError:
            study.give_up()
            raise
