"""Read runs through W&B's public reader, if W&B's record classes have changed."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from lightning_trainingkit.dashboards.read.record import Record, UnreadableError
from lightning_trainingkit.dashboards.read.wandb_run import WandbRun

__all__ = ["read_by_inspect"]

_SECONDS = 300.0  # enough for 800,000 rows
_LONGEST_LINE = 64 << 20
_READ = ("run", "config", "metric", "summary", "history", "exit")


def read_by_inspect(path: Path, seconds: float = _SECONDS) -> Record:
    """Read ``run-ID.wandb`` by ``wandb leet inspect`` in another process.

    Args:
        path: The file.
        seconds: Time limit. The process is ended after it.

    Raises:
        UnreadableError: If the file holds no run, the time limit is over, or W&B is too old.
    """
    run, unread = WandbRun(), 0
    with tempfile.TemporaryFile() as said:
        # No prompt, no account, no network: only the file is read.
        process = subprocess.Popen(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)],
            env={**os.environ, "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # W&B starts a program written in Go: both end together
        )
        try:
            assert process.stdout is not None
            for line in _lines(process.stdout, time.monotonic() + seconds):
                try:
                    _take(run, line)
                except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                    unread += 1
            code = process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        said.seek(max(0, said.tell() - 10_000))
        lines = said.read().decode(errors="replace").strip().splitlines()
    why = lines[-1].removeprefix("Error: ").removeprefix("wandb leet inspect: ") if lines else ""
    if code != 0:
        old = "no such command" in why.lower()
        raise UnreadableError("W&B 0.31 or newer is needed to read it: pip install -U wandb." if old else why)
    cut_off = "incomplete" in why
    if why and not cut_off:
        run.note(why)
    if unread:
        run.note(f"{unread} records could not be read")
    return run.record(cut_off)


def _lines(output: IO[bytes], end: float) -> Iterator[bytes]:
    rest = b""
    while True:
        if not select.select([output], [], [], max(0.0, end - time.monotonic()))[0]:
            raise UnreadableError("W&B's reader took too long and was ended.")
        found = os.read(output.fileno(), 1 << 20)
        *lines, rest = (rest + found).split(b"\n")
        yield from lines
        if len(rest) > _LONGEST_LINE:
            raise UnreadableError(f"a record has more than {_LONGEST_LINE >> 20} MiB.")
        if not found:
            return


def _take(run: WandbRun, line: bytes) -> None:
    kind = line[line.find(b'"type":"') + 8 : 40].partition(b'"')[0].decode()
    if kind not in _READ:
        return
    content = json.loads(line)[kind]
    if kind == "history":
        run.row(content["item"])
    elif kind == "summary":
        run.summarize(content.get("update", {}))
        for item in content.get("remove", ()):
            run.forget_summary(_name(item))
    elif kind == "config":
        _configure(run, content)
    elif kind == "run":
        start = content.get("start_time", "1970-01-01T00:00:00Z").replace("Z", "+00:00")
        run.identify({**content, "started": datetime.fromisoformat(start).timestamp()})
        _configure(run, content.get("config", {}))
    elif kind == "metric":
        run.metric(content.get("name", ""), content.get("summary", {}))
    else:
        run.end(content.get("exit_code", 0), content.get("runtime", 0))


def _configure(run: WandbRun, config: Mapping[str, Any]) -> None:
    for name, value in config.get("update", {}).items():
        run.setting(name, value)
    for item in config.get("remove", ()):
        run.forget_setting(_name(item))


def _name(item: Mapping[str, Any]) -> str:
    return item.get("key") or ".".join(item["nested_key"])
