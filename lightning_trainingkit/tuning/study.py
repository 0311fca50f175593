"""One search in one storage, which many workers share: its tickets, their attempts and their results."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.space import Choices, Space
from lightning_trainingkit.tuning.storage import import_optuna, open_storage, patient
from lightning_trainingkit.tuning.tickets import (
    ATTEMPT,
    DEATHS,
    DIED,
    ERROR,
    HEARTBEAT,
    INTERRUPTED,
    OUTCOME,
    SURPLUS,
    TICKET,
    Ticket,
    read_tickets,
    surplus_of,
)

if TYPE_CHECKING:
    import optuna

__all__ = ["Attempt", "Result", "Study"]

_KIT = "trainingkit"  # the study's attribute with its space
_WAIT = 5.0  # seconds for the worker that creates a study to describe it


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


@dataclass(frozen=True)
class Result:
    """What came of a ticket.

    Args:
        ticket: Number of the ticket.
        state: ``completed``, ``pruned`` or ``failed``.
        params: The hyperparameters.
        value: Best value of the monitored metric; of a pruned trial its last. None if it failed.
        reports: The monitored value after each epoch, over all attempts.
        attempts: How many attempts there were.
        outcome: Further numbers: ``epochs`` (that were trained by the last attempt), ``best_epoch``, ``seconds``,
            ``metrics``, ``folder``, ``resumed`` (the epochs that came from a checkpoint), ``diverged``.
        error: The traceback, or how the last attempt died.
        trial: Number of Optuna's trial.
    """

    ticket: int
    state: str
    params: dict[str, Any]
    value: float | None
    reports: dict[int, float]
    attempts: int
    outcome: dict[str, Any]
    error: str
    trial: int


class Study:
    """One search in one storage. All workers with the same storage and name share it.

    The study owes ``trials`` tickets; what earlier workers created counts. Nothing is locked: see ``tickets.py``.

    Args:
        storage: None for memory, a file for a journal, or the URL of a database.
        name: Name of the study.
        space: The space that is searched.
        trials: Number of trials over all workers. A study that has more of them keeps them.
        mode: Whether low (``"min"``) or high (``"max"``) values are good.
        seed: Seed of the study.
        sampler: One of Optuna's samplers, or a function that makes one from a seed. The function is called for each
            ticket, so that no two workers draw the same numbers. By default Optuna's TPE.
        pruner: One of Optuna's pruners. By default nothing is pruned.
        points: Hyperparameters of the first tickets, all or some of them; the sampler chooses the others.
        retries: How often a ticket is tried again after its process, or its worker, died.

    Raises:
        ValueError: If the stored study has another space or mode, or was not made by the kit.
        ConnectionError: If the storage is out of reach.

    Example:
        >>> study = Study(None, "demo", Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True}}), trials=2)
        >>> attempt = study.claim()
        >>> study.complete(attempt, 0.5)
        True
        >>> study.counts()["completed"], study.best.value
        (1, 0.5)
    """

    def __init__(
        self,
        storage: str | Path | None,
        name: str,
        space: Space,
        trials: int,
        *,
        mode: str = "min",
        seed: int = 0,
        sampler: "optuna.samplers.BaseSampler | Callable[[int], optuna.samplers.BaseSampler] | None" = None,
        pruner: "optuna.pruners.BasePruner | None" = None,
        points: Sequence[Mapping[str, Any]] = (),
        retries: int = 2,
    ) -> None:
        optuna = import_optuna()
        self.name = name
        self.space = space
        self.trials = _check.integer("trials", trials, "Give the number of trials over all workers.", least=1)
        _check.one_of("mode", mode, ("min", "max"), "Say which end is good.")
        self.mode = mode
        self.seed = _check.integer("seed", seed, "Give any whole number.", least=0)
        self.retries = _check.integer("retries", retries, "0 tries nothing again.", least=0)
        self.points = [dict(each) for each in points]
        self._check_points()
        self.worker = uuid4().hex[:12]
        self._beats = 0
        self._sampler = sampler or (lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True))
        self._storage = open_storage(storage)
        self._made = False
        with _quiet_optuna():
            self.optuna: optuna.Study = self._open(pruner or optuna.pruners.NopPruner())
        self._id = patient(lambda: self._storage.get_study_id_from_name(name))
        self._check_stored()
        self._create_tickets()

    @classmethod
    def load(cls, storage: str | Path | None, name: str, **options: Any) -> "Study":
        """Open a study that is there, with the space that it has.

        Raises:
            ValueError: If there is no such study of the kit. The names of others are listed.
        """
        optuna = import_optuna()
        opened = open_storage(storage)
        found = {each.study_name: each.user_attrs for each in patient(lambda: optuna.get_all_study_summaries(opened))}
        if _KIT not in found.get(name, {}):
            known = [each for each, attributes in found.items() if _KIT in attributes]
            raise ValueError(
                f"`study` must be the name of a study in the storage, got {name!r}. There are: "
                f"{', '.join(_check.nearest(name, known)) or 'none'}."
            )
        kept = found[name][_KIT]
        given = {"mode": kept["mode"], "seed": kept["seed"]} | options
        return cls(storage, name, Space(kept["space"]), given.pop("trials", 1), **given)

    # What a worker does.

    def claim(self) -> Attempt | None:
        """Claim an attempt that waits, and choose its hyperparameters. None if none waits.

        Attempts of workers that died are tried first.
        """
        self.tidy()
        waiting = [each for each in self.tickets().values() if each.state == "waiting"]
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
            return self.optuna.pruner.prune(self.optuna, self._storage.get_trial(attempt.trial_id))

        try:
            return bool(patient(tell))
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
                trial_id = self._trial_id(trial.number)
                try:
                    patient(lambda trial_id=trial_id: self._storage.set_trial_user_attr(trial_id, SURPLUS, True))  # type: ignore[misc]
                    patient(lambda trial_id=trial_id: self._storage.set_trial_state_values(trial_id, TrialState.FAIL))  # type: ignore[misc]
                except UpdateFinishedTrialError:
                    continue
        for ticket in read_tickets(trials, self.retries).values():
            if ticket.state == "open":
                last = ticket.last
                self._add(
                    {TICKET: ticket.number, ATTEMPT: last.user_attrs[ATTEMPT] + 1, DEATHS: ticket.deaths},
                    last.params,
                    dict(last.distributions),
                    last.system_attrs,
                )

    # What there is.

    def tickets(self) -> dict[int, Ticket]:
        """All tickets by number."""
        return read_tickets(self._read(), self.retries)

    def is_done(self) -> bool:
        """Whether every ticket has its result."""
        return all(each.is_done for each in self.tickets().values())

    def counts(self) -> dict[str, int]:
        """How many tickets there are in each state, and in ``total``."""
        states = [each.state for each in self.tickets().values()]
        names = ("completed", "pruned", "failed", "running", "waiting", "open")
        return {"total": len(states), **{name: states.count(name) for name in names}}

    def results(self) -> list[Result]:
        """The results of all tickets that are done, by ticket."""
        return [_result(each) for each in self.tickets().values() if each.is_done]

    def ranked(self) -> list[Result]:
        """The results of completed tickets, the best first."""
        found = [each for each in self.results() if each.state == "completed"]
        return sorted(found, key=lambda each: (1 if self.mode == "min" else -1) * (each.value or 0.0))

    @property
    def best(self) -> Result | None:
        """The best completed result, None before the first."""
        return next(iter(self.ranked()), None)

    # Parts.

    def _check_points(self) -> None:
        for point in self.points:
            for name, value in point.items():
                if name not in self.space or not self.space.holds(name, value):
                    raise ValueError(
                        f"`points` must lie in the space, got {name}={value!r}. The space is {self.space}."
                    )

    def _open(self, pruner: Any) -> Any:
        optuna = import_optuna()
        direction = "minimize" if self.mode == "min" else "maximize"
        options: dict[str, Any] = {"storage": self._storage, "study_name": self.name, "pruner": pruner}
        try:
            created = patient(lambda: optuna.create_study(direction=direction, **options))
        except optuna.exceptions.DuplicatedStudyError:
            return patient(lambda: optuna.load_study(**options))
        self._made = True
        described = {"version": self.space.version, "space": self.space.form, "mode": self.mode, "seed": self.seed}
        patient(lambda: created.set_user_attr(_KIT, described))
        return created

    def _check_stored(self) -> None:
        end = time.monotonic() + _WAIT
        while (kept := patient(lambda: self.optuna.user_attrs).get(_KIT)) is None and time.monotonic() < end:
            time.sleep(0.1)
        if kept is None:
            raise ValueError(
                f"`study` must be one of the kit, got {self.name!r}, which another program made. Give another name."
            )
        for name, mine in (("version", self.space.version), ("mode", self.mode)):
            if kept[name] != mine:
                what = "another space" if name == "version" else "another mode"
                theirs, ours = (kept["space"], self.space.form) if name == "version" else (kept["mode"], self.mode)
                raise ValueError(
                    f"`study` must have the stored space and mode, got {what} for {self.name!r}: {ours}; stored is "
                    f"{theirs}. Give another name, or the stored one."
                )

    def _create_tickets(self) -> None:
        """Create the missing tickets. A worker that joins lets the one that made the study create them."""
        count, since = -1, time.monotonic()
        while not self._made and time.monotonic() - since < 1.0:
            found = len(self.tickets())
            if found >= self.trials:
                break
            if found != count:
                count, since = found, time.monotonic()
            time.sleep(0.05)
        for number in sorted(set(range(self.trials)) - set(self.tickets())):
            point = self.points[number] if number < len(self.points) else {}
            distributions = {name: each for name, each in self.space.to_distributions().items() if name in point}
            self._add({TICKET: number, ATTEMPT: 0, DEATHS: 0}, point, distributions, {})

    def _add(
        self,
        attributes: dict[str, Any],
        params: Mapping[str, Any],
        distributions: dict[str, Any],
        system: Mapping[str, Any],
    ) -> None:
        from optuna.trial import TrialState, create_trial

        trial = create_trial(
            state=TrialState.WAITING,
            params=dict(params),
            distributions=distributions,
            user_attrs=attributes,
            system_attrs=dict(system),
        )
        patient(lambda: self.optuna.add_trial(trial))

    def _read(self) -> list[Any]:
        return patient(lambda: self.optuna.get_trials(deepcopy=False))

    def _trial_id(self, number: int) -> int:
        return patient(lambda: self._storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def _claimed(self, ticket: Ticket) -> Attempt | None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        number, attempt = ticket.last.number, int(ticket.last.user_attrs[ATTEMPT])
        trial_id = self._trial_id(number)
        try:
            if not patient(lambda: self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)):
                return None
        except UpdateFinishedTrialError:
            return None
        # A twin with a lower number is visible by now, since numbers are given in order.
        if self.tickets()[ticket.number].attempts[attempt].number != number:
            self.tidy()
            return None
        claimed = Attempt(ticket.number, attempt, {}, self.seed_of(ticket.number), ticket.reports, number, trial_id)
        self._beat(claimed)
        try:
            params = patient(lambda: self._suggested(ticket.number, trial_id))
        except UpdateFinishedTrialError:
            return None
        return Attempt(ticket.number, attempt, params, claimed.seed, ticket.reports, number, trial_id)

    def seed_of(self, ticket: int) -> int:
        """The seed of a ticket's training."""
        return int(np.random.SeedSequence([self.seed, ticket]).generate_state(1)[0])

    def _suggested(self, ticket: int, trial_id: int) -> dict[str, Any]:
        """Choose the hyperparameters; those that an earlier attempt has are kept."""
        from optuna.samplers import BaseSampler
        from optuna.trial import Trial

        sampler = self._sampler
        self.optuna.sampler = sampler if isinstance(sampler, BaseSampler) else sampler(self.seed_of(ticket))
        trial = Trial(self.optuna, trial_id)
        for name, domain in self.space.items():
            if isinstance(domain, Choices):
                trial.suggest_categorical(name, domain.values)
            elif domain.integer:
                trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
            else:
                trial.suggest_float(name, domain.low, domain.high, log=domain.log)
        return dict(trial.params)

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
            self.optuna.tell(attempt.trial, value, state=wanted)
            return True

        try:
            return patient(end)
        except (UpdateFinishedTrialError, ValueError):
            # Another worker declared the attempt dead between the two calls.
            if patient(lambda: self._storage.get_trial(attempt.trial_id)).state.is_finished():
                return False
            raise


def _result(ticket: Ticket) -> Result:
    last = ticket.last
    attributes = last.user_attrs
    return Result(
        ticket=ticket.number,
        state=ticket.state,
        params=dict(last.params),
        value=last.value if last.values else None,
        reports=ticket.reports,
        attempts=len(ticket.attempts),
        outcome=dict(attributes.get(OUTCOME, {})),
        error=str(attributes.get(ERROR) or attributes.get(DIED) or ""),
        trial=last.number,
    )


@contextmanager
def _quiet_optuna() -> Any:
    """Hide that a study was created. The user's own setting comes back."""
    logging = import_optuna().logging
    level = logging.get_verbosity()
    logging.set_verbosity(max(level, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(level)
