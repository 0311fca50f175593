"""One search in one storage, which many workers share: its tickets, their attempts and their results."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning.trials.agreement import keep_or_refuse, refuse_others
from lightning_trainingkit.tuning.trials.attempt_list import AttemptList
from lightning_trainingkit.tuning.trials.attempts import Attempt, Attempts
from lightning_trainingkit.tuning.trials.quiet_optuna import quiet_optuna
from lightning_trainingkit.tuning.trials.result import Result, best_first, result_of
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.storage import import_optuna, open_storage, patient
from lightning_trainingkit.tuning.trials.tickets import ATTEMPT, DEATHS, TICKET, Ticket

if TYPE_CHECKING:
    import optuna

__all__ = ["Attempt", "Result", "Study"]

_KIT = "trainingkit"  # the study's attribute with its space
_JOB = "trainingkit_job"  # what its trials do
_FACTS = "trainingkit_facts"  # further things that all workers agree on
_VOID = "trainingkit_void"  # whether no trial can work: the next call begins a new study
_WAIT = 5.0  # seconds for the worker that creates a study to describe it


class Study:
    """One search in one storage. All workers with the same storage and name share it.

    The study owes ``trials`` tickets; what earlier workers created counts. Nothing is locked: see ``tickets.py``.

    Args:
        storage: None for memory, a file for a journal, or the URL of a database.
        name: Name of the study.
        space: The space that is searched.
        trials: Number of trials over all workers. A study that has more of them keeps them. 0 creates none.
        mode: Whether low (``"min"``) or high (``"max"``) values are good.
        seed: Seed of the study.
        sampler: One of Optuna's samplers, or a function that makes one from a seed. The function is called for each
            ticket, so that no two workers draw the same numbers. By default Optuna's TPE.
        pruner: One of Optuna's pruners. By default nothing is pruned.
        points: Hyperparameters of the first tickets, all or some of them; the sampler chooses the others.
        retries: How often a ticket is tried again after its process, or its worker, died.

    Attributes:
        optuna: Optuna's own study, for its plots and importances.
        attempts: What this worker claims and finishes.
        all_attempts: The attempts of all workers.
        made: Whether this worker created the study.

    Raises:
        ValueError: If the stored study has another space or mode, or was not made by the kit.
        ConnectionError: If the storage is out of reach.

    Example:
        >>> study = Study(None, "demo", Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True}}), trials=2)
        >>> attempt = study.attempts.claim()
        >>> study.attempts.complete(attempt, 0.5)
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
        package = import_optuna()
        self.name = name
        self.space = space
        self.trials = _check.integer("trials", trials, "Give the number of trials over all workers.", least=0)
        _check.one_of("mode", mode, ("min", "max"), "Say which end is good.")
        self.mode = mode
        self.seed = _check.integer("seed", seed, "Give any whole number.", least=0)
        self.retries = _check.integer("retries", retries, "0 tries nothing again.", least=0)
        self.points = [dict(each) for each in points]
        self._check_points()
        sampler = sampler or (lambda seed: package.samplers.TPESampler(seed=seed, constant_liar=True))
        self._storage = open_storage(storage)
        self.made = False
        with quiet_optuna():
            self.optuna: optuna.Study = self._open(pruner or package.pruners.NopPruner())
        self._check_stored()
        self.all_attempts = AttemptList(self.optuna, self._storage, self.retries)
        self.attempts = Attempts(self.all_attempts, self.optuna, self._storage, space, sampler, self.seed)
        self._create_tickets()

    @classmethod
    def load(cls, storage: str | Path | None, name: str, **options: Any) -> "Study":
        """Open a study that is there, with the space that it has. It gets no further trials, unless ``trials`` asks so.

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
        given = {name: kept[name] for name in ("mode", "seed", "retries")} | options
        return cls(storage, name, Space(kept["space"]), given.pop("trials", 0), **given)

    def tickets(self) -> dict[int, Ticket]:
        """All tickets by number."""
        return self.all_attempts.tickets()

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
        return [result_of(each) for each in self.tickets().values() if each.is_done]

    def rank(self, results: Iterable[Result]) -> list[Result]:
        """The completed ones among the results, the best first."""
        return best_first(results, self.mode)

    def ranked(self) -> list[Result]:
        """The results of completed tickets, the best first."""
        return self.rank(self.results())

    @property
    def best(self) -> Result | None:
        """The best completed result, None before the first."""
        return next(iter(self.ranked()), None)

    def owe(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Owe a ticket for each point, in this order. Tickets that are there count.

        Args:
            points: Hyperparameters of all tickets, those that are there included.

        Raises:
            ValueError: If a point lies outside the space.
        """
        self.points = [dict(each) for each in points]
        self._check_points()
        self.trials = max(self.trials, len(self.points))
        self._create_tickets()

    def check_facts(self, facts: Mapping[str, Any]) -> None:
        """Keep further things that all workers must agree on, or refuse others than the study has.

        Args:
            facts: Numbers and texts by name.

        Raises:
            ValueError: If the study has another value.
        """
        keep_or_refuse(self.optuna, _FACTS, facts)

    def give_up(self) -> None:
        """Note that no trial can work. If nothing was reported, the next call deletes the study and begins again."""
        patient(lambda: self.optuna.set_user_attr(_VOID, True))

    @property
    def is_void(self) -> bool:
        """Whether no trial could work, nothing was reported, and no worker is at it."""
        return _is_void(self.optuna)

    def check_job(self, job: Mapping[str, Any]) -> None:
        """Refuse trials of another kind than the study has: their values cannot be compared."""
        keep_or_refuse(self.optuna, _JOB, job, again=not any(each.reports for each in self.tickets().values()))

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
            found = patient(lambda: optuna.load_study(**options))
            if not self.trials or not _is_void(found):
                return found
            with contextlib.suppress(KeyError):  # another worker was faster
                patient(lambda: optuna.delete_study(study_name=self.name, storage=self._storage))
            return self._open(pruner)
        self.made = True
        patient(lambda: created.set_user_attr(_KIT, self._described()))
        return created

    def _described(self) -> dict[str, Any]:
        mine = {"mode": self.mode, "seed": self.seed, "retries": self.retries}
        return {"version": self.space.version, "space": self.space.form, **mine}

    def _check_stored(self) -> None:
        """Refuse a study of another program, or with other settings."""
        end = time.monotonic() + _WAIT
        while (kept := patient(lambda: self.optuna.user_attrs).get(_KIT)) is None and time.monotonic() < end:
            time.sleep(0.1)
        mine = self._described()
        if kept is None:
            if patient(self.optuna.get_trials):
                raise ValueError(
                    f"`study` must be one of the kit, got {self.name!r}, which another program made. Give another name."
                )
            patient(lambda: self.optuna.set_user_attr(_KIT, mine))  # the worker that made it was killed
            kept = mine
        if kept["version"] != mine["version"]:
            raise ValueError(
                f"`space` must be the one that {self.name!r} has in the storage, got {mine['space']}, not "
                f"{kept['space']}. Give the study another name, or the stored space."
            )
        refuse_others(self.name, {name: kept[name] for name in mine}, mine)

    def _create_tickets(self) -> None:
        """Create the missing tickets. A worker that joins lets the one that made the study create them."""
        count, since = -1, time.monotonic()
        while not self.made and time.monotonic() - since < 1.0:
            found = len(self.tickets())
            if found >= self.trials:
                break
            if found != count:
                count, since = found, time.monotonic()
            time.sleep(0.05)
        for number in sorted(set(range(self.trials)) - set(self.tickets())):
            point = self.points[number] if number < len(self.points) else {}
            distributions = {name: each for name, each in self.space.to_distributions().items() if name in point}
            self.all_attempts.add({TICKET: number, ATTEMPT: 0, DEATHS: 0}, point, distributions, {})


def _is_void(study: "optuna.Study") -> bool:
    if not patient(lambda: study.user_attrs).get(_VOID):
        return False
    trials = patient(lambda: study.get_trials(deepcopy=False))
    return not any(each.intermediate_values or each.state.name == "RUNNING" for each in trials)
