"""Do the jobs in processes of one thread each."""

import contextlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_trainingkit import experiments

from .jobs import Job, Results, do

__all__ = ["finish", "workers"]


@contextlib.contextmanager
def workers(number: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that train, each on one thread. They start with the first job."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _quiet) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def finish(
    title: str,
    jobs: Iterable[Job],
    results: Results,
    pool: ProcessPoolExecutor,
    work: Callable[[Job], dict[str, Any]] = do,
) -> None:
    """Do the jobs that have no result yet.

    Args:
        title: What the bar says.
        jobs: The jobs.
        results: Where results are kept.
        pool: Processes of ``workers``.
        work: Does a job. Another benchmark has its own.
    """
    todo = results.missing(jobs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), speed_estimate_period=300) as progress:
        bar = progress.add_task(title, total=len(todo))
        running = {pool.submit(work, job): job for job in todo}
        for done in as_completed(running):
            results.add(running[done], done.result())
            progress.advance(bar)


def _quiet() -> None:
    torch.set_num_threads(1)
    experiments.quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
