"""Read runs that W&B keeps in files, offline or not, through W&B's own public reader."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.read.record import Record, UnreadableError, flatten
from lightning_trainingkit.dashboards.read.rows import STEP, Rows, is_number

__all__ = ["read_wandb_file", "read_wandb_files"]

_READ = ("run", "config", "metric", "summary", "history", "exit")
# `wandb leet inspect --json PATH` for one path after the other: to start W&B takes longer than to read many a file.
_INSPECT = """
import json, os, sys, tempfile
with tempfile.TemporaryFile() as said:
    terminal = os.dup(2)
    os.dup2(said.fileno(), 2)
    try:
        from wandb.cli.cli import cli
    except BaseException:
        os.dup2(terminal, 2)
        raise
    for path in sys.argv[1:]:
        try:
            code = cli.main(["leet", "inspect", "--json", path], "wandb")
        except SystemExit as end:
            code = end.code
        sys.stderr.flush()
        said.seek(0)
        print(chr(0) + json.dumps([code, said.read().decode(errors="replace")]), flush=True)
        said.seek(0)
        said.truncate()
"""


def read_wandb_files(paths: Sequence[Path]) -> Iterator[Record | UnreadableError]:
    """Read ``run-ID.wandb`` of some runs, one after the other; of a file that is cut off, what is whole.

    The state is ``finished`` or ``failed`` where the run has an end, else ``unknown``.

    Yields:
        The run, or why there is none: the file is empty or no run's, or W&B is too old to read it.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _INSPECT, *map(str, paths)],
        # No prompt, no account, no network: only the files are read.
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        lines = iter(reader.stdout)
        end: list[Any] = []

        def goes_on(line: str) -> bool:
            if line[0] != "\0":
                return True
            end[:] = json.loads(line[1:])
            return False

        for path in paths:
            end[:] = [None, ""]
            record, found = _from_lines(takewhile(goes_on, lines))
            code, said = end
            if code is None:  # the reader itself has ended
                said = reader.stderr.read()
            yield _checked(path, record, found, code, said.strip().splitlines())


def _checked(
    path: Path, record: Record, found: bool, code: int | None, said: Sequence[str]
) -> Record | UnreadableError:
    why = said[-1].removeprefix("Error: ").removeprefix("wandb leet inspect: ") if said else ""
    if code != 0:
        old = "no such command" in why.lower()
        return UnreadableError("W&B 0.31 or newer is needed to read it: pip install -U wandb." if old else why)
    if not found:
        return UnreadableError("it holds no run." if path.stat().st_size else "it is empty.")
    if "incomplete" not in why or record.state != "unknown":  # every file of a run that goes on is incomplete
        record.note = why
    record.source = str(path)
    record.name = record.name or record.id
    return record


def _from_lines(lines: Iterable[str]) -> tuple[Record, bool]:
    record, rows, found = Record(id=""), Rows(), False
    for line in lines:
        kind = line[line.find('"type":"') + 8 : 40].partition('"')[0]
        if kind not in _READ:
            continue
        content = json.loads(line)[kind]
        if kind == "history":
            item = content["item"]
            record.seconds = max(record.seconds, _number(item.get("_runtime")) or 0.0)
            rows.add(item.get(STEP, item.get("_step")), item)
        elif kind == "run":
            found = True
            _identify(record, content)
        elif kind == "config":
            record.config |= flatten(content.get("update", {}))
        elif kind == "summary":
            record.summary |= {
                name: value
                for name, each in content.get("update", {}).items()
                if not name.startswith("_") and (value := _number(each)) is not None
            }
        elif kind == "metric":
            goal = content.get("summary", {})
            if "name" in content and ("max" in goal or "min" in goal):
                record.goals[content["name"]] = "max" if "max" in goal else "min"
        else:
            record.state = "failed" if content.get("exit_code") else "finished"
            record.seconds = max(record.seconds, _number(content.get("runtime")) or 0.0)
    record.curves = rows.curves()
    return record, found


def _identify(record: Record, run: dict[str, Any]) -> None:
    record.id = run["run_id"]
    record.name = run.get("display_name", record.name)
    record.project = run.get("project", record.project)
    record.group = run.get("run_group", record.group)
    record.job_type = run.get("job_type", record.job_type)
    record.tags = [str(tag) for tag in run.get("tags", record.tags)]
    record.config |= flatten(run.get("config", {}).get("update", {}))
    if "start_time" in run:
        record.started = datetime.fromisoformat(run["start_time"].replace("Z", "+00:00")).timestamp()


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def read_wandb_file(path: Path) -> Record:
    """Read ``run-ID.wandb``.

    Raises:
        UnreadableError: If there is none.
    """
    (found,) = read_wandb_files([path])
    if isinstance(found, UnreadableError):
        raise found
    return found
