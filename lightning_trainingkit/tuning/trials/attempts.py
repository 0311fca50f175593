"""What a worker does with its own attempts: it claims and finishes them. Nothing is locked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from lightning_trainingkit.tuning.trials.attempt_list import AttemptList
from lightning_trainingkit.tuning.trials.choose import Sampler, choose
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.storage import patient
from lightning_trainingkit.tuning.trials.tickets import ATTEMPT, DIED, ERROR, HEARTBEAT, INTERRUPTED, OUTCOME, Ticket

if TYPE_CHECKING:
    import optuna

__all__ = ["Attempt", "Attempts"]


@dataclass(frozen=True)
class Attempt:
    """One try of a ticket, which a worker has claimed.

    Args:
        ticket: Number of the ticket.
        number: Number of the attempt, 0 for the first.
        params: The hyperparameters.
        seed: Seed of the training, a function of the study's seed and the ticket.
        reports: What earlier attempts reported, by epoch.
        trial: Number of Optuna's trial.
        trial_id: Number of Optuna's trial in its storage.
    """

    ticket: int
    number: int
    params: dict[str, Any]
    seed: int
    reports: dict[int, float]
    trial: int
    trial_id: int


class Attempts:
    """The attempts of a study, as one worker claims and finishes them.

    Args:
        everything: The attempts of all workers.
        study: Optuna's study.
        storage: Its storage.
        space: The space that is searched.
        sampler: One of Optuna's samplers, or a function that makes one from a seed.
        seed: Seed of the study.

    Attributes:
        worker: A name for this worker.
    """

    def __init__(
        self,
        everything: AttemptList,
        study: "optuna.Study",
        storage: "optuna.storages.BaseStorage",
        space: Space,
        sampler: Sampler,
        seed: int,
    ) -> None:
        self.worker = uuid4().hex[:12]
        self._all = everything
        self._study = study
        self._storage = storage
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._beats = 0

    def claim(self) -> Attempt | None:
        """Claim an attempt that waits, and choose its hyperparameters. None if none waits.

        Attempts of workers that died are tried first.
        """
        self._all.tidy()
        waiting = [each for each in self._all.tickets().values() if each.state == "waiting"]
        for ticket in sorted(waiting, key=lambda each: (not each.last.user_attrs[ATTEMPT], each.number)):
            attempt = self._claimed(ticket)
            if attempt is not None:
                return attempt
        return None

    def heartbeat(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Say that these attempts are alive.

        Returns:
            The attempts that another worker has declared dead. Their results will not count.
        """
        self._beats += 1
        return [each for each in attempts if not self._beat(each)]

    def report(self, attempt: Attempt, epoch: int, value: float) -> bool:
        """Report the monitored value after an epoch.

        Returns:
            Whether the attempt should be pruned.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        def tell() -> bool:
            self._storage.set_trial_intermediate_value(attempt.trial_id, epoch, value)
            return bool(self._study.pruner.prune(self._study, self._storage.get_trial(attempt.trial_id)))

        try:
            return patient(tell)
        except UpdateFinishedTrialError:
            return True

    def complete(self, attempt: Attempt, value: float, outcome: Mapping[str, Any] | None = None) -> bool:
        """Finish an attempt with its value. False if another worker has declared it dead: the value is dropped."""
        return self._end(attempt, "COMPLETE", value, {OUTCOME: dict(outcome or {})})

    def prune(self, attempt: Attempt, outcome: Mapping[str, Any] | None = None) -> bool:
        """Finish an attempt early. Its last report is its value. False as in ``complete``."""
        return self._end(attempt, "PRUNED", None, {OUTCOME: dict(outcome or {})})

    def fail(self, attempt: Attempt, error: str) -> bool:
        """Fail an attempt, and its ticket for good: its training raised. False as in ``complete``."""
        return self._end(attempt, "FAIL", None, {ERROR: error[-8000:]})

    def die(self, attempt: Attempt, reason: str) -> bool:
        """Fail an attempt whose process died. Its ticket is tried again, at most ``retries`` times."""
        return self._end(attempt, "FAIL", None, {DIED: reason[-2000:]})

    def interrupt(self, attempt: Attempt) -> bool:
        """Give an attempt back, which this worker stopped. Its ticket waits for the next worker."""
        return self._end(attempt, "FAIL", None, {INTERRUPTED: self.worker})

    def seed_of(self, ticket: int) -> int:
        """The seed of a ticket's training."""
        return int(np.random.SeedSequence([self._seed, ticket]).generate_state(1)[0])

    def _claimed(self, ticket: Ticket) -> Attempt | None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        number, attempt = ticket.last.number, int(ticket.last.user_attrs[ATTEMPT])
        trial_id = self._all.trial_id(number)
        try:
            if not patient(lambda: self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)):
                return None
        except UpdateFinishedTrialError:
            return None
        # A twin with a lower number is visible by now, since numbers are given in order.
        if self._all.tickets()[ticket.number].attempts[attempt].number != number:
            self._all.tidy()
            return None
        claimed = Attempt(ticket.number, attempt, {}, self.seed_of(ticket.number), ticket.reports, number, trial_id)
        self._beat(claimed)
        try:
            params = patient(lambda: choose(self._study, trial_id, self._space, self._sampler, claimed.seed))
        except UpdateFinishedTrialError:
            return None
        return Attempt(ticket.number, attempt, params, claimed.seed, ticket.reports, number, trial_id)

    def _beat(self, attempt: Attempt) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        beat = [self.worker, self._beats]
        try:
            patient(lambda: self._storage.set_trial_user_attr(attempt.trial_id, HEARTBEAT, beat))
        except UpdateFinishedTrialError:
            return False
        return True

    def _end(self, attempt: Attempt, state: str, value: float | None, attributes: Mapping[str, Any]) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        wanted = TrialState[state]

        def end() -> bool:
            trial = self._storage.get_trial(attempt.trial_id)
            if trial.state.is_finished():  # by another worker; or by this one, and the answer was lost
                owner = trial.user_attrs.get(HEARTBEAT, [None])[0]
                return bool(trial.state == wanted and owner == self.worker and DIED not in trial.user_attrs)
            for name, content in attributes.items():
                self._storage.set_trial_user_attr(attempt.trial_id, name, content)
            self._study.tell(attempt.trial, value, state=wanted)
            return True

        try:
            return patient(end)
        except (UpdateFinishedTrialError, ValueError):
            # Another worker declared the attempt dead between the two calls.
            if patient(lambda: self._storage.get_trial(attempt.trial_id)).state.is_finished():
                return False
            raise
