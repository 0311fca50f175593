"""All attempts of a study, for any worker: read, added, declared dead, and tidied. ``tickets.py`` has the rule."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_trainingkit.tuning.trials.storage import patient
from lightning_trainingkit.tuning.trials.tickets import (
    ATTEMPT,
    DEATHS,
    DIED,
    SURPLUS,
    TICKET,
    Ticket,
    read_tickets,
    surplus_of,
)

if TYPE_CHECKING:
    import optuna

__all__ = ["AttemptList"]


class AttemptList:
    """The attempts of a study in its storage. Doing anything twice, or by two workers at once, is harmless.

    Args:
        study: Optuna's study.
        storage: Its storage.
        retries: How often a ticket is tried again after its process, or its worker, died.
    """

    def __init__(self, study: "optuna.Study", storage: "optuna.storages.BaseStorage", retries: int) -> None:
        self._study = study
        self._storage = storage
        self._retries = retries
        self._id = patient(lambda: storage.get_study_id_from_name(study.study_name))

    def tickets(self) -> dict[int, Ticket]:
        """All tickets by number."""
        return read_tickets(self._read(), self._retries)

    def add(
        self,
        attributes: dict[str, Any],
        params: Mapping[str, Any],
        distributions: dict[str, Any],
        system: Mapping[str, Any],
    ) -> None:
        """Add an attempt that waits, with those hyperparameters that are chosen already."""
        from optuna.trial import TrialState, create_trial

        trial = create_trial(
            state=TrialState.WAITING,
            params=dict(params),
            distributions=distributions,
            user_attrs=attributes,
            system_attrs=dict(system),
        )
        patient(lambda: self._study.add_trial(trial))

    def bury(self, trial: int, reason: str) -> None:
        """Fail an attempt of another worker that is dead. If it has finished meanwhile, nothing happens."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        def fail() -> None:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, trial)
            self._storage.set_trial_user_attr(trial_id, DIED, reason)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)

        try:
            patient(fail)
        except UpdateFinishedTrialError:
            return

    def tidy(self) -> None:
        """Fail surplus trials, and create the next attempt of each ticket whose last one ended early."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        trials = self._read()
        for trial in surplus_of(trials):
            if not trial.state.is_finished():
                trial_id = self.trial_id(trial.number)
                try:
                    patient(lambda trial_id=trial_id: self._storage.set_trial_user_attr(trial_id, SURPLUS, True))  # type: ignore[misc]
                    patient(lambda trial_id=trial_id: self._storage.set_trial_state_values(trial_id, TrialState.FAIL))  # type: ignore[misc]
                except UpdateFinishedTrialError:
                    continue
        for ticket in read_tickets(trials, self._retries).values():
            if ticket.state == "open":
                last = ticket.last
                self.add(
                    {TICKET: ticket.number, ATTEMPT: last.user_attrs[ATTEMPT] + 1, DEATHS: ticket.deaths},
                    last.params,
                    dict(last.distributions),
                    last.system_attrs,
                )

    def trial_id(self, number: int) -> int:
        """The number of Optuna's trial in its storage."""
        return patient(lambda: self._storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def _read(self) -> list[Any]:
        return patient(lambda: self._study.get_trials(deepcopy=False))
