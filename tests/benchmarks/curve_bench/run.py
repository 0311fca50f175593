"""Train the cases in two processes, and keep each in a file."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from lightning_trainingkit._files import write_bytes

from . import oracle
from .cases import Case
from .training import Training, as_plain

__all__ = ["train_all"]

_PROCESSES = 2


def train_all(cases: Sequence[Case], folder: Path, done: Callable[[], object]) -> list[dict[str, Any]]:
    """Train the cases that have no file yet.

    Returns:
        For each case its ``curves``, ``facts`` and ``seconds``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[Case, dict[str, Any]] = {}
    with ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("fork"), _quiet) as pool:
        waiting = {}
        for case in cases:
            if (kept := _load(folder, case)) is not None:
                found[case] = kept
                done()
            else:
                waiting[pool.submit(_train, case, folder)] = case
        for future in as_completed(waiting):
            found[waiting[future]] = future.result()
            done()
    return [found[case] for case in cases]


def _quiet() -> None:
    """Prepare a process that trains."""
    torch.set_num_threads(1)


def _train(case: Case, folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    training = Training(case.settings)
    curves = as_plain(training.run())
    facts = oracle.plain(oracle.examine(case.plant, training))
    content = {
        "settings": vars(case.settings),
        "curves": curves,
        "facts": facts,
        "seconds": time.perf_counter() - start,
    }
    # curves may hold NaN, which Python alone reads from JSON
    write_bytes(_file(folder, case), json.dumps(content).encode())
    return content


def _load(folder: Path, case: Case) -> dict[str, Any] | None:
    """The training from an earlier run with the same settings, or None."""
    file = _file(folder, case)
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return content if content.get("settings") == vars(case.settings) else None


def _file(folder: Path, case: Case) -> Path:
    return folder / f"{case.name.replace(', ', '-').replace('; ', '-').replace(' ', '_')}.json"
