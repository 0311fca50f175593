"""One piece of work of the benchmark, its result, and the file that keeps the results."""

import contextlib
import hashlib
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_trainingkit

from .choosers import CHOOSERS
from .free import FREE
from .range_test import range_test
from .tasks import Task
from .training import train

__all__ = ["Job", "Results", "do"]


@dataclass(frozen=True)
class Job:
    """A training, a range test, or a choice of a rate.

    Args:
        kind: A name in ``KINDS``.
        task: The task.
        seed: Of weights and order.
        detail: The learning rate of a training, or the name of a method.
    """

    kind: str
    task: Task
    seed: int
    detail: float | str = ""

    @property
    def key(self) -> str:
        """What the result depends on: the task's settings, and of our own choices the finder's code."""
        code = f", {_finder_code()}" if self.detail == "ours" else ""
        return f"{self.kind} {self.detail}, seed {self.seed}, {self.task!r}{code}"


KINDS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "train": lambda job: train(job.task, job.seed, float(job.detail)).as_dict(),
    "free": lambda job: train(job.task, job.seed, 0.0, optimizer=FREE[str(job.detail)]).as_dict(),
    "range test": lambda job: range_test(job.task, job.seed),
    "choose": lambda job: CHOOSERS[str(job.detail)](job.task, job.seed),
}


def do(job: Job) -> dict[str, Any]:
    """Do the work. What a method raises is its result: the error's text, and no rate."""
    try:
        return KINDS[job.kind](job)
    except Exception as error:
        if job.kind == "choose":
            return {"rate": None, "error": f"{type(error).__name__}: {error}"}
        raise RuntimeError(f"A training must run to its end, got an error in {job}: {error}") from error


class Results:
    """Results by job, kept in ``results.jsonl``: a line is added as soon as a job is done.

    An error is not kept, so that a run that goes on tries again.

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "results.jsonl"
        self._known: dict[str, dict[str, Any]] = {}
        for line in self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # a killed run may leave half a line
                entry = json.loads(line)
                self._known[entry["key"]] = entry["result"]

    def __getitem__(self, job: Job) -> dict[str, Any]:
        return self._known[job.key]

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs without a result, by seed, and in a random order within a seed: the time left is then known."""
        todo = [job for job in dict.fromkeys(jobs) if job.key not in self._known]
        random.Random(0).shuffle(todo)
        return sorted(todo, key=lambda job: job.seed)

    def add(self, job: Job, result: dict[str, Any]) -> None:
        """Keep a result, in the file too."""
        self._known[job.key] = result
        if "error" not in result:
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"key": job.key, "result": result}))


def _finder_code() -> str:
    """A fingerprint of the finder's files."""
    folder = Path(lightning_trainingkit.__file__).parent / "tuning"
    files = sorted(folder.rglob("*.py"))
    return hashlib.sha1(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
