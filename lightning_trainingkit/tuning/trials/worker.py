"""The event loop of one worker: it starts attempts, answers them, and watches the other workers."""

import os
import pickle
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lightning_trainingkit.tuning.trials.liveness import Watch
from lightning_trainingkit.tuning.trials.only_failures import refuse_only_failures
from lightning_trainingkit.tuning.trials.signals import Signals
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.tickets import HEARTBEAT
from lightning_trainingkit.tuning.trials.trial_answer import answer as answer_trial
from lightning_trainingkit.tuning.trials.trial_devices import TrialDevices
from lightning_trainingkit.tuning.trials.trial_job import LAST, TrialJob, attempt_folder
from lightning_trainingkit.tuning.trials.trial_server import start_server, trial_context
from lightning_trainingkit.tuning.trials.trial_slot import TrialSlot, make_order
from lightning_trainingkit.tuning.trials.trial_table import TrialTable

__all__ = ["Worker"]

_SOON = 5.0  # seconds for the processes of trials to end their W&B runs after Ctrl-C
_LEAVE = 60.0  # seconds for the process of a finished trial to end


class Worker:
    """The event loop of one worker."""

    def __init__(
        self,
        study: Study,
        source: Source,
        job: TrialJob,
        folder: Path,
        devices: TrialDevices,
        heartbeat: float,
        grace: float,
    ) -> None:
        self.study = study
        self.job = job
        self.folder = folder
        self.devices = devices
        self.modules = source.modules
        self.source, self.job_bytes = pickle.dumps(source), job.pickled()
        self.with_main = b"__main__" in self.source or b"__main__" in self.job_bytes
        self.heartbeat = heartbeat
        self.watch = Watch(grace)
        self.slots: dict[int, TrialSlot] = {}
        self.leaving: dict[TrialSlot, float] = {}  # attempts that have ended: when to kill their processes
        self.changed = True  # whether a slot is free, or another worker may have changed the study

    def run(self, stop: Callable[[Study], bool | None], table: TrialTable | None) -> None:
        """Work until all is done."""
        beat = look = 0.0
        with trial_context(self.modules, self.with_main) as context, Signals() as signals:
            try:
                with signals.at_once():  # no ticket is claimed yet, which would have no heartbeat meanwhile
                    start_server(context, self.with_main)
                while True:
                    signals.check()
                    now = time.monotonic()
                    if now >= beat:
                        self._beat()
                        beat = now + self.heartbeat
                    if now >= look:  # what other workers did is seen here
                        self._look()
                        look, self.changed = now + self.heartbeat / 2, True
                    if self.changed:
                        self.changed = False
                        stopping = self._fill(context, stop)
                        results, counts = self.study.results(), self.study.counts()
                        if not self.slots and not self.leaving and (stopping or len(results) == counts["total"]):
                            break
                    if table is not None:
                        table.show(list(self.slots.values()), results, counts)
                    with signals.at_once():
                        self._sleep(max(0.0, min(beat, look) - time.monotonic()))
                    self._receive()
            except BaseException:
                self._give_back()
                raise
            finally:
                if table is not None:
                    table.show(list(self.slots.values()), self.study.results(), self.study.counts())
        refuse_only_failures(self.study, at_end=True)

    def _fill(self, context: Any, stop: Callable[[Study], bool | None]) -> bool:
        """Start attempts on the free slots. True if no more are to be started."""
        for number in range(self.devices.jobs):
            if number in self.slots:
                continue
            refuse_only_failures(self.study)
            answer = stop(self.study)
            if answer or answer is None:
                return bool(answer)
            attempt = self.study.attempts.claim()
            if attempt is None:
                return False
            order = make_order(
                attempt,
                self.source,
                self.job_bytes,
                study=self.study.name,
                folder=self.folder,
                accelerator=self.devices.accelerator,
                ranks=self.devices.devices,
                threads=self.devices.threads,
                environment=self._environment(number),
            )
            try:
                self.slots[number] = TrialSlot(attempt, order, context, self.with_main)
            except BaseException:
                self.study.attempts.interrupt(attempt)
                raise
        return False

    def _environment(self, slot: int) -> dict[str, str]:
        found = {**os.environ, "WANDB_MODE": self.job.wandb_mode, "WANDB_SILENT": "true"}
        if self.job.project is not None:
            found["WANDB_PROJECT"] = self.job.project
        return found | self.devices.environment(slot)

    def _sleep(self, seconds: float) -> None:
        """Wait for a message, the end of a process, or the next heartbeat."""
        waitables = [each for slot in self.slots.values() if slot not in self.leaving for each in slot.waitables]
        waitables += [each for slot in self.leaving for each in slot.sentinels]
        if waitables:
            wait(waitables, seconds)
        else:
            time.sleep(min(seconds, 1.0))

    def _receive(self) -> None:
        """Handle what has arrived, and free the slots of attempts that have ended."""
        for slot in self.slots.values():
            for pipe, message in slot.messages():
                answer_trial(self.study.attempts, self.job.max_epochs, slot, pipe, message)
            died = not slot.ended and any(code is not None for code in slot.exit_codes) and not _more(slot)
            if died and (slot.is_over or any(slot.exit_codes)):
                slot.kill()
                self.study.attempts.die(slot.attempt, slot.how_it_died())
                slot.ended = True
            if slot.ended:
                self.leaving.setdefault(slot, time.monotonic() + _LEAVE)
        for slot, end in list(self.leaving.items()):
            if not slot.is_over and time.monotonic() > end:
                slot.kill()
            if slot.is_over:
                slot.close()
                self._clean(slot)
                del self.leaving[slot]
                self.changed = True
        for number, slot in list(self.slots.items()):
            if slot.ended and (slot not in self.leaving or not self.devices.hold_memory):
                del self.slots[number]
                self.changed = True

    def _beat(self) -> None:
        running = {each.attempt.trial: each for each in self.slots.values() if not each.ended}
        for attempt in self.study.attempts.heartbeat([each.attempt for each in running.values()]):
            running[attempt.trial].ended = True  # another worker has taken the ticket over
            running[attempt.trial].kill()

    def _look(self) -> None:
        """Declare the attempts of dead workers dead."""
        mine = {each.attempt.trial for each in self.slots.values()}
        running = [
            each.last
            for each in self.study.tickets().values()
            if each.state == "running" and each.last.number not in mine
        ]
        counters = {each.number: tuple(each.user_attrs.get(HEARTBEAT, ())) for each in running}
        for number in self.watch.look(counters):
            self.study.all_attempts.bury(number, f"No heartbeat of its worker for {self.watch.grace:g} seconds.")

    def _clean(self, slot: TrialSlot) -> None:
        """Remove the checkpoints of a ticket that is done."""
        ticket = self.study.tickets()[slot.attempt.ticket]
        if ticket.is_done:
            for attempt in range(slot.attempt.number + 1):
                (attempt_folder(self.folder, ticket.number, attempt) / LAST).unlink(missing_ok=True)

    def _give_back(self) -> None:
        """End the running attempts. Their tickets wait for the next worker."""
        slots = [*self.leaving, *(each for each in self.slots.values() if each not in self.leaving)]
        for slot in slots:
            slot.interrupt()
        end = time.monotonic() + _SOON
        while not all(slot.is_over for slot in slots) and time.monotonic() < end:
            time.sleep(0.02)
        for slot in slots:
            slot.kill()
            if not slot.ended:
                self.study.attempts.interrupt(slot.attempt)
        self.study.all_attempts.tidy()
        self.slots.clear()
        self.leaving.clear()


def _more(slot: TrialSlot) -> bool:
    """Whether a message of a process that has ended still waits."""
    return any(not pipe.closed and pipe.poll() for pipe in slot.pipes)
