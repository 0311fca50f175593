"""Train all cases in two processes, with a detector."""

import contextlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from lightning_trainingkit import experiments

from .cases import SEEDS, Case
from .cures import cure
from .judge import Judgement, alarms, cured, judge
from .run import Outcome, run_case, train
from .settings import Settings

__all__ = ["examine_faults", "examine_healthy", "scores", "workers"]

Detector = Callable[[], Any]  # makes a callback with ``findings``
PROCESSES = 2


@contextlib.contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """Start processes that train, each on one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"), _quiet) as pool:
        yield pool


def examine_faults(
    pool: ProcessPoolExecutor, cases: Sequence[Case], detector: Detector, done: Callable[[], object]
) -> list[Judgement]:
    """Train the healthy twins, then the faulty cases with a detector, and judge the findings.

    Args:
        pool: Processes of ``workers``.
        cases: Faulty cases.
        detector: Makes the callback whose ``findings`` are judged. Processes must be able to import it.
        done: Called after each case.
    """
    twins = list(dict.fromkeys(case.twin for case in cases))
    reached = dict(zip(twins, scores(pool, twins), strict=True))
    tasks = [(case, reached[case.twin]) for case in cases]
    return _each(pool, partial(_fault, detector=detector), tasks, done)


def examine_healthy(
    pool: ProcessPoolExecutor, cases: Sequence[Case], detector: Detector, done: Callable[[], object]
) -> list[Outcome]:
    """Train healthy cases with a detector."""
    return _each(pool, partial(_healthy, detector=detector), cases, done)


def scores(pool: ProcessPoolExecutor, runs: Sequence[Settings]) -> list[float]:
    """Train without a detector, and return the accuracies."""
    return _each(pool, _score, runs, lambda: None)


def _each(
    pool: ProcessPoolExecutor, work: Callable[[Any], Any], tasks: Sequence[Any], done: Callable[[], object]
) -> list[Any]:
    """Do the work for each task, in order."""
    results = []
    for result in pool.map(work, tasks):
        done()
        results.append(result)
    return results


def _quiet() -> None:
    torch.set_num_threads(1)
    experiments.quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # faults make Lightning warn


def _score(settings: Settings) -> float:
    return train(settings).score


def _healthy(case: Case, detector: Detector) -> Outcome:
    return _run(case, detector)


def _fault(task: tuple[Case, float], detector: Detector) -> Judgement:
    """Train a fault, and apply the advice where that decides something."""
    case, twin = task
    outcome = _run(case, detector)
    after: dict[str, float] = {}
    verdict = judge(case, outcome, twin, after)
    for place, finding in enumerate(alarms(outcome)[:3] if verdict.counts and not case.verify else []):
        first_of_a_seed = place == 0 and case.settings.seed == SEEDS[0]
        is_undecided = verdict.right is None or place < verdict.right
        if is_undecided or first_of_a_seed:
            changed = cure(case.settings, finding)
            after[finding.kind] = outcome.score if changed == case.settings else train(changed).score
            if cured(after[finding.kind], twin):
                break
    return judge(case, outcome, twin, after)


def _run(case: Case, detector: Detector) -> Outcome:
    try:
        return run_case(case, [detector()])
    except Exception as error:
        raise RuntimeError(f"A case must train to its end, got an error in {case.name!r}: {error}") from error
