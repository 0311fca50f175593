"""The processes of one attempt: one for each rank. They end together."""

import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lightning_trainingkit.tuning.trials.attempts import Attempt
from lightning_trainingkit.tuning.trials.trial_job import TrialOrder
from lightning_trainingkit.tuning.trials.trial_process import run_trial
from lightning_trainingkit.tuning.trials.trial_server import UNGUARDED, without_main
from lightning_trainingkit.tuning.trials.wording import label
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["TrialSlot", "make_order"]


class TrialSlot:
    """A running attempt.

    Args:
        attempt: The attempt.
        order: What rank 0 gets.
        context: Starts the processes.
        with_main: Whether they need the program's own script.

    Attributes:
        began: Whether the trial has been built.
        epoch: Finished epochs.
        value: The latest reported value.
        resumed: Epochs that came from a checkpoint.
    """

    def __init__(self, attempt: Attempt, order: TrialOrder, context: BaseContext, with_main: bool) -> None:
        self.attempt = attempt
        self.order = order
        self.with_main = with_main
        self.began = False
        self.epoch = self.resumed = 0
        self.value: float | None = None
        self.ended = False  # whether the study knows how it ended
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for path in order.home.glob("*.ckpt"):  # of a study that was deleted, in the same folder
            path.unlink(missing_ok=True)
        try:
            with without_main(with_main):
                for rank in range(order.ranks):
                    ours, theirs = context.Pipe()
                    process = context.Process(  # type: ignore[attr-defined]
                        target=run_trial, args=(theirs, replace(order, rank=rank)), name=f"trial-{attempt.ticket}"
                    )
                    self.pipes.append(ours)
                    process.start()
                    self.processes.append(process)
                    theirs.close()
        except (EOFError, ConnectionError) as error:
            self.kill()
            raise WrongSetupError(UNGUARDED) from error
        except BaseException:
            self.kill()
            raise

    @property
    def waitables(self) -> list[Any]:
        """What becomes ready when there is a message, or a process ends."""
        return [*(each for each in self.pipes if not each.closed), *(each.sentinel for each in self.processes)]

    @property
    def sentinels(self) -> list[Any]:
        """What becomes ready when a process ends."""
        return [each.sentinel for each in self.processes if each.exitcode is None]

    def messages(self) -> list[tuple[Connection, tuple[Any, ...]]]:
        """The messages that have arrived."""
        found = []
        for pipe in self.pipes:
            try:
                while not pipe.closed and pipe.poll():
                    found.append((pipe, pipe.recv()))
            except (EOFError, OSError):
                pipe.close()
        return found

    @property
    def exit_codes(self) -> list[int | None]:
        """The exit codes, None of those that run."""
        return [each.exitcode for each in self.processes]

    @property
    def is_over(self) -> bool:
        """Whether all processes have ended."""
        return all(code is not None for code in self.exit_codes)

    def interrupt(self) -> None:
        """Let the processes end their W&B runs as killed. ``kill`` must follow."""
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                with suppress(OSError):
                    os.kill(process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill all processes and what they have started, such as the workers of a DataLoader."""
        for process in self.processes:
            if process.pid is not None:
                with suppress(OSError):  # its own session, unless it has just been forked
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
        for process in self.processes:
            process.join(10)
        self.close()

    def close(self) -> None:
        """Free the pipes."""
        for pipe in self.pipes:
            pipe.close()

    def how_it_died(self) -> str:
        """Say how the processes ended, with the last lines of their output.

        Raises:
            WrongSetupError: If they could not import the program's own script.
        """
        if self.with_main and not self.began and not (self.order.home / "output.txt").exists():
            raise WrongSetupError(UNGUARDED)
        codes = [code for code in self.exit_codes if code]
        code = codes[0] if codes else 0
        said = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        tail = _tail(self.order.home / "output.txt")
        return f"The process was {said}." + (f" Its last output:\n{tail}" if tail else "")


def make_order(
    attempt: Attempt,
    source: bytes,
    job: bytes,
    *,
    study: str,
    folder: Path,
    accelerator: str,
    ranks: int,
    threads: int,
    environment: Mapping[str, str],
) -> TrialOrder:
    """The order for an attempt."""
    return TrialOrder(
        source=source,
        job=job,
        study=study,
        params=attempt.params,
        seed=attempt.seed,
        ticket=attempt.ticket,
        attempt=attempt.number,
        folder=folder.absolute(),
        label=label(attempt.params),
        accelerator=accelerator,
        ranks=ranks,
        rank=0,
        port=_free_port() if ranks > 1 else 0,
        threads=threads,
        environment=dict(environment),
        worker=os.getpid(),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
