"""What runs in the process of a trial. It knows neither Optuna nor the storage: it talks to its worker by a pipe."""

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lightning_trainingkit._files import is_running
from lightning_trainingkit.tuning.trials.pruning import ReportToStudy
from lightning_trainingkit.tuning.trials.trial_job import BEST, TrialJob, TrialOrder, attempt_folder
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["TrialJob", "own_environment", "run_trial"]

_FOREIGN = ("TORCHELASTIC_", "OMPI_", "PMI_", "JSM_NAMESPACE_")  # by which Lightning knows a cluster
_RANKS = (
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def run_trial(pipe: Connection, order: TrialOrder) -> None:
    """Train one attempt, as one rank of it, and send what came of it.

    Messages to the worker: ``("began", resumed_epochs)``, ``("report", epochs, value)`` which is answered by True
    (stop) or False, and one of ``("done", outcome)``, ``("wrong", said)``, ``("failed", traceback)``. A process that
    is terminated sends none of them.
    """
    _become(order)
    _end_with(order.worker)
    try:
        try:
            source, job = pickle.loads(order.source), pickle.loads(order.job)
        except Exception as error:
            raise WrongSetupError(
                f"`module` must be found by name in another process, got {type(error).__name__}: {error}. Write it at "
                "the top of a file that can be imported."
            ) from error
        outcome = _train(pipe, order, source, job)
        if order.rank == 0:
            pipe.send(("done", outcome))
    except WrongSetupError as error:
        _tell(pipe, ("wrong", str(error)))
        _leave(1)
    except BaseException as error:
        if _was_terminated(error):  # without a message it counts as a death, and is tried again
            _leave(128 + signal.SIGTERM)
        _tell(pipe, ("failed", traceback.format_exc()))
        _leave(1)
    _leave(0)


def _train(pipe: Connection, order: TrialOrder, source: Any, job: TrialJob) -> dict[str, Any]:
    from lightning_trainingkit._lightning import L
    from lightning_trainingkit.callbacks.command_center.command_center import CommandCenter
    from lightning_trainingkit.callbacks.epoch_seed import EpochSeed
    from lightning_trainingkit.tuning.trials.trial_checkpoint import KeepLast
    from lightning_trainingkit.tuning.trials.trial_record import RecordTrial

    started = time.monotonic()
    L.seed_everything(order.seed, workers=True, verbose=False)
    module, data = source(order.params)

    def ask(epoch: int, value: float) -> bool:
        pipe.send(("report", epoch, value))
        return bool(pipe.recv())

    order.home.mkdir(parents=True, exist_ok=True)
    report = ReportToStudy(job.monitor, job.mode, ask)
    center = None if job.wandb_mode == "disabled" else CommandCenter(order.study, job.job_type, name=order.label)
    if center is not None:
        signal.signal(signal.SIGINT, partial(_interrupted, center))
    short = "log_every_n_steps" not in job.trainer_options
    record = None if center is None else RecordTrial(order, report, short)
    own: list[L.Callback] = [each for each in (center, record, report) if each is not None]
    if not any(isinstance(each, EpochSeed) for each in job.callbacks):
        own.insert(0, EpochSeed(order.seed))
    trainer = L.Trainer(
        **{
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **({"strategy": "ddp"} if order.ranks > 1 else {}),
            **job.trainer_options,
            "accelerator": order.accelerator,
            "devices": order.ranks,
            "max_epochs": job.max_epochs,
            "enable_checkpointing": True,
            "callbacks": [*own, *job.callbacks, KeepLast(order.home, report, job.keep_best)],
            "default_root_dir": order.home,
        }
    )
    checkpoint = order.earlier
    resumed = _epochs(checkpoint) if checkpoint is not None else 0
    if order.rank == 0:
        pipe.send(("began", resumed))
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False if checkpoint is not None else None)
    if center is not None:
        center.finish(0)
    if not trainer.num_training_batches:
        raise WrongSetupError(
            "`data` must give a training batch, got none. Take smaller batches, or leave `drop_last` and "
            "`limit_train_batches` out."
        )
    if report.best is None and not report.diverged:
        raise WrongSetupError(
            f"`monitor` must be logged in validation, got {job.monitor!r} in a training that never validated. Check "
            "`check_val_every_n_epoch`, `limit_val_batches` and the epochs of a trial."
        )
    return {
        "value": report.best,
        "pruned": report.pruned,
        "diverged": report.diverged,
        "best_epoch": report.best_epoch,
        "epochs": trainer.current_epoch - resumed,
        "resumed": resumed,
        "seconds": round(time.monotonic() - started, 3),
        "metrics": report.metrics,
        "folder": str(order.home),
        "best": _best(order, report.best_epoch) if job.keep_best else None,
    }


def _was_terminated(error: BaseException) -> bool:
    """Whether SIGTERM ended the fit, such as SLURM sends to all processes before the end of a job."""
    from lightning_trainingkit._lightning import L

    return isinstance(error, L.utilities.exceptions.SIGTERMException)


def _best(order: TrialOrder, epoch: int) -> str | None:
    """The weights of the best epoch, which an earlier attempt may have saved."""
    for attempt in range(order.attempt, -1, -1):
        path = attempt_folder(order.folder, order.ticket, attempt) / BEST
        if path.is_file() and _epochs(path) == epoch:
            return str(path)
    return None


def _interrupted(center: Any, *_: Any) -> None:
    """End the W&B run as killed: the worker was interrupted, and kills this process soon."""
    try:
        center.finish(255)
    finally:
        os._exit(1)


def _epochs(checkpoint: Path) -> int:
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
    return int(content["epoch"]) + 1


def _become(order: TrialOrder) -> None:
    """Take this attempt's environment, session, threads and output file."""
    import torch

    from lightning_trainingkit._lightning import rank_zero_only

    mine = own_environment(order)
    os.environ.clear()
    os.environ.update(mine)
    # The server has read the worker's rank, such as SLURM_PROCID.
    rank_zero_only.rank = order.rank  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):  # a session of its own: Ctrl-C is the worker's alone
        os.setsid()
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))
    if order.threads:
        torch.set_num_threads(order.threads)
    order.home.mkdir(parents=True, exist_ok=True)
    name = "output.txt" if order.rank == 0 else f"output-{order.rank}.txt"
    with (order.home / name).open("ab", buffering=0) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))


def own_environment(order: TrialOrder) -> dict[str, str]:
    """The variables of the worker, but for those by which Lightning would join the worker's cluster or ranks."""
    kept = {name: value for name, value in order.environment.items() if not name.startswith(_FOREIGN)}
    for name in _RANKS:
        kept.pop(name, None)
    if order.ranks > 1:
        kept |= {"LOCAL_RANK": str(order.rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        kept |= {"MASTER_PORT": str(order.port)}
    return kept


def _end_with(worker: int) -> None:
    """Kill this process, and what it started, when its worker is gone."""
    parent = parent_process()
    sentinels = [parent.sentinel] if parent is not None else []

    def watch() -> None:
        while not wait(sentinels, 1.0) and is_running(worker):
            pass
        _kill_session()

    threading.Thread(target=watch, daemon=True, name="worker-watch").start()


def _kill_session() -> None:
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _tell(pipe: Connection, message: tuple[str, str]) -> None:
    with contextlib.suppress(OSError):
        pipe.send(message)


def _leave(code: int) -> None:
    """End at once where ranks may wait for each other, as the interpreter's end does not."""
    from torch import distributed

    sys.stdout.flush()
    sys.stderr.flush()
    if code == 0 and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    if code:
        os._exit(code)
