"""Workers and trials are killed, the database restarts: is a trial lost, or counted twice?

Four workers share a study of 100 trials of 6 epochs, which sleep 0.5 s each. 20 times, spread from the first to the
last finished trial, one process is killed by SIGKILL: a worker, which is replaced, or the process of a trial, in turns.
PostgreSQL restarts twice. A journal file has the same kills.

- **Completed**: tickets with a finished trial. None may be lost.
- **Counted twice**: finished trials in the storage beyond one for each ticket.
- **Resumed**: of the killed attempts that had written a checkpoint and were tried again, those whose next attempt went
  on from it. There must be one at least. Each trial must have reported each of its epochs.
"""

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from tuning_bench.rows import row
from tuning_bench.toys import RATES
from tuning_bench.workers import go, start

LONGEST = 1800  # seconds of one run


@dataclass(frozen=True)
class Kill:
    """One process that was killed.

    Args:
        what: ``"worker"`` or ``"trial"``.
        ticket: Number of the ticket whose attempt died.
        attempt: Number of the attempt.
        saved: Whether a checkpoint was there.
    """

    what: str
    ticket: int
    attempt: int
    saved: bool


def rows(args: Any) -> list[dict]:
    """The counts of each run, in the form of `results.json`."""
    from tests import postgres

    found = []
    for where in args.storages:
        for seed in range(args.seed, args.seed + args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                if where == "PostgreSQL":
                    with postgres.running() as server:
                        found += Chaos(args, f"PostgreSQL, seed {seed}", server.url, Path(folder), seed, server).run()
                else:
                    found += Chaos(args, f"journal, seed {seed}", f"{folder}/study.log", Path(folder), seed).run()
    return found


class Chaos:
    """One run.

    Args:
        args: Trials, kills, restarts, workers, epochs and seconds of an epoch.
        name: Name of the run.
        storage: The storage.
        folder: An empty folder.
        seed: Seed of the kills.
        server: The database, which is restarted.
    """

    def __init__(self, args: Any, name: str, storage: str, folder: Path, seed: int, server: Any = None) -> None:
        self.args, self.name, self.storage, self.folder, self.server = args, name, storage, folder, server
        self.draw = random.Random(seed)
        self.study = Study(storage, "chaos", Space(RATES), args.trials, seed=0)
        self.workers: list[Any] = []
        self.kills: list[Kill] = []
        self.restarts = 0

    def run(self) -> list[dict]:
        """Run to the end, and count."""
        begun = time.perf_counter()
        try:
            self.workers = [self._start() for _ in range(self.args.workers)]
            go(self.folder, self.workers)
            self._disturb()
            codes = [worker.wait(LONGEST) for worker in self.workers]
            if any(codes):
                Console().print((self.folder / "workers.log").read_text()[-4000:], markup=False)
        finally:
            for worker in self.workers:
                worker.kill()  # its trials end by themselves
        return self._counted(time.perf_counter() - begun)

    def _disturb(self) -> None:
        """Kill and restart, as the number of finished trials grows."""
        total, end = self.args.trials, time.monotonic() + LONGEST
        count = self.args.kills
        last = total - self.args.workers  # so many trials run then
        kills = [round(number * last / max(1, count - 1)) for number in range(count)]
        restarts = [round((number + 1) * total / (self.args.restarts + 1)) for number in range(self.args.restarts)]
        while (kills or restarts) and time.monotonic() < end and any(each.poll() is None for each in self.workers):
            done = len(self.study.results())
            if self.server is not None and restarts and done >= restarts[0]:
                restarts.pop(0)
                self.server.restart()
                self.restarts += 1
            if kills and done >= kills[0]:
                if len(kills) > 1:
                    time.sleep(self.draw.uniform(0, 2.0))
                if self._kill("worker" if len(kills) % 2 else "trial"):
                    kills.pop(0)
            if self.server is None:
                restarts.clear()
            time.sleep(0.1)

    def _kill(self, what: str) -> bool:
        """Kill a running trial, or the worker of one. Returns whether there was one."""
        running = list(self._running())
        if not running:
            return False
        home, processes = self.draw.choice(running)
        with contextlib.suppress(ProcessLookupError):
            os.kill(processes[what], signal.SIGKILL)
        if what == "worker":
            gone = next(each for each in self.workers if each.pid == processes[what])
            gone.wait()
            self.workers[self.workers.index(gone)] = self._start()
        end = time.monotonic() + 10
        while _runs(processes["trial"]) and time.monotonic() < end:
            time.sleep(0.01)
        attempt = int(home.name.removeprefix("attempt-"))
        saved = any((home.parent / f"attempt-{each}" / "last.ckpt").exists() for each in range(attempt + 1))
        self.kills.append(Kill(what, int(home.parent.name.removeprefix("trial-")), attempt, saved))
        return True

    def _running(self) -> Iterator[tuple[Path, dict[str, int]]]:
        """Folders and processes of the trials that run now under a worker of this run."""
        workers = {each.pid for each in self.workers}
        for path in sorted(self.folder.glob("trial-*/attempt-*/process.json")):
            processes = json.loads(path.read_text())
            if processes["worker"] in workers and _runs(processes["trial"]):
                yield path.parent, processes

    def _start(self) -> Any:
        args = self.args
        return start(self.storage, "chaos", self.folder, args.trials, args.epochs, args.epoch_seconds)

    def _counted(self, seconds: float) -> list[dict]:
        total = self.args.trials
        results = {each.ticket: each for each in self.study.results()}
        completed = [each for each in results.values() if each.state == "completed"]
        finished = sum(each.state.name == "COMPLETE" for each in self.study.optuna.trials)
        whole = [each for each in completed if [*each.reports] == [*range(1, self.args.epochs + 1)]]
        retried = {
            each.ticket: each
            for each in self.kills
            if each.saved and each.ticket in results and results[each.ticket].attempts > each.attempt + 1
        }
        resumed = [ticket for ticket in retried if results[ticket].outcome.get("resumed")]
        killed = {what: sum(each.what == what for each in self.kills) for what in ("worker", "trial")}
        restarts = self.args.restarts if self.server is not None else 0
        Console().print(f"{self.name}: {len(completed)} completed, {killed}, {seconds:.0f} s", highlight=False)
        return [
            row(f"{self.name}: completed trials", len(completed), goal=total, ok=len(completed) == total),
            row(f"{self.name}: lost", total - len(completed), goal=0, ok=len(completed) == total),
            row(f"{self.name}: counted twice", finished - len(completed), goal=0, ok=finished == len(completed)),
            row(f"{self.name}: with each epoch once", len(whole), goal=total, ok=len(whole) == total),
            row(
                f"{self.name}: resumed, of retried trials with a checkpoint",
                *(len(resumed), len(retried)),
                len(resumed) / len(retried) if retried else None,
                goal=1.0,
                ok=0 < len(resumed) == len(retried),  # 0 of 0 shows nothing
            ),
            row(
                f"{self.name}: kills of workers, of trials",
                *(killed["worker"], killed["trial"]),
                goal=self.args.kills,
                ok=len(self.kills) == self.args.kills,
            ),
            row(f"{self.name}: restarts", self.restarts, goal=restarts, ok=self.restarts == restarts),
            row(f"{self.name}: seconds", seconds),
        ]


def _runs(process: int) -> bool:
    """Whether a process runs. One that has ended, and that nobody has asked, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
