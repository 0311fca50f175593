"""Do the jobs in processes of one thread each."""

import logging
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_trainingkit import experiments

from .jobs import Job, Results, do

__all__ = ["finish"]


def finish(title: str, jobs: Iterable[Job], results: Results, workers: int) -> None:
    """Do the jobs that have no result yet.

    Args:
        title: What the bar says.
        jobs: The jobs.
        results: Where results are kept.
        workers: Number of processes.
    """
    todo = results.missing(jobs)
    if not todo:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TextColumn("left"), TimeRemainingColumn(), speed_estimate_period=300) as progress,
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _quiet) as pool,
    ):
        bar = progress.add_task(title, total=len(todo))
        running = {pool.submit(do, job): job for job in todo}
        try:
            for done in as_completed(running):
                results.add(running[done], done.result())
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _quiet() -> None:
    torch.set_num_threads(1)
    experiments.quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
