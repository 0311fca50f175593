"""Two workers on one PostgreSQL against one worker, on the same number of waiting trials.

A trial waits more than it computes, so that two workers fit on two cores. The time is that of the storage: from the
start of the first trial to the end of the last. Imports and the servers' starts lie before it.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from tuning_bench.rows import row
from tuning_bench.toys import RATES

HERE = Path(__file__).parents[1]
TRIALS, EPOCHS, SECONDS = 16, 2, 1.0


def rows(args: Any) -> list[dict]:
    """The comparison, in the form of `results.json`."""
    from tests import postgres

    times: dict[int, list[float]] = {1: [], 2: []}
    with postgres.running() as server:
        for turn in range(args.rounds):
            for count in (1, 2) if turn % 2 == 0 else (2, 1):
                times[count].append(seconds(server.url, f"{count} workers, {turn}", count))
    ratios = [two / one for one, two in zip(times[1], times[2], strict=True)]
    one, two = (statistics.median(times[count]) for count in (1, 2))
    ratio = statistics.median(ratios)
    name = f"two workers, {TRIALS} trials on one PostgreSQL: s against one worker"
    return [row(name, two, one, ratio, low=min(ratios), high=max(ratios), goal=0.6, ok=ratio <= 0.6)]


def seconds(storage: str, name: str, count: int) -> float:
    """Seconds from the start of the first trial to the end of the last."""
    with tempfile.TemporaryDirectory() as where:
        study = Study(storage, name, Space(RATES), TRIALS)
        workers = [start(storage, name, Path(where), TRIALS, EPOCHS, SECONDS) for _ in range(count)]
        try:
            go(Path(where), workers)
            for worker in workers:
                worker.wait(600)
        finally:
            for worker in workers:
                worker.kill()
        done = [each for each in study.optuna.trials if each.state.name == "COMPLETE"]
        assert len(done) == TRIALS, study.counts()
        return (
            max(each.datetime_complete for each in done) - min(each.datetime_start for each in done)
        ).total_seconds()


def start(storage: str, name: str, folder: Path, trials: int, epochs: int, seconds: float) -> subprocess.Popen:
    """Start a worker. It waits for `go`."""
    arguments = (storage, name, folder, trials, epochs, seconds)
    log = (folder / "workers.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "tuning_bench.worker", *map(str, arguments)], cwd=HERE, stdout=log, stderr=log
        )


def go(folder: Path, workers: list[subprocess.Popen], timeout: float = 1200) -> None:
    """Let the workers begin, once all are ready."""
    end = time.monotonic() + timeout
    while not all((folder / f"ready-{each.pid}").exists() for each in workers):
        if time.monotonic() > end or any(each.poll() is not None for each in workers):
            raise RuntimeError((folder / "workers.log").read_text())
        time.sleep(0.05)
    (folder / "go").touch()
