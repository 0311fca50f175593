"""The three contenders of the part `budget`: the seven steps, plain Optuna, and random trials; and the fresh scores."""

import functools
import hashlib
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

import lightning_trainingkit
from lightning_trainingkit.tuning import Space, seven_steps
from tuning_bench.budget_tasks import EPOCHS, TASKS, Data, Net, train

BUDGET = 200  # epochs: a fifth of 100 random trials of 10 epochs
_FRESH = 1_000_000  # seeds from here on are of no search


@dataclass(frozen=True)
class Job:
    """One search, one random trial, or one fresh training.

    Args:
        kind: A name in ``KINDS``.
        task: A name in ``TASKS``.
        seed: Of the search, the random trial, or the fresh training.
        params: Hyperparameters of a fresh training, as JSON.
    """

    kind: str
    task: str
    seed: int
    params: str = ""

    @property
    def key(self) -> str:
        """What the result depends on, with the code of the tasks, and of our own searches the code of the search."""
        return f"{self.kind}, {self.task}, seed {self.seed}, {self.params}, {_code(self.kind == 'seven steps')}"


def do(job: Job) -> dict[str, Any]:
    """Do the work."""
    return KINDS[job.kind](job)


def our_search(job: Job) -> dict[str, Any]:
    """The seven steps at their defaults. Their trials are processes, one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        found = seven_steps(
            Net(job.task, lr=TASKS[job.task].lr),
            Data(job.task),
            space=TASKS[job.task].space,
            max_trials=None,
            max_epochs=BUDGET,
            output=folder,
            jobs=1,
            accelerator="cpu",
            seed=job.seed,
            wandb="disabled",
            verbose=False,
        )
    return {
        "params": json.dumps(dict(found.best)) if found.best else "",
        "epochs": found.epochs,
        "trials": sum(len(each.trials) for each in found.searches),
        "first steps": found.epochs - sum(each.epochs for each in found.searches),
        "searches": [[each.step, len(each.trials), each.epochs, each.value] for each in found.searches],
        "said": found.line,
    }


def plain_optuna(job: Job) -> dict[str, Any]:
    """Optuna's TPE and its median pruner at their defaults, without a part of the kit."""
    used = [0]

    def objective(trial: optuna.Trial) -> float:
        params = {name: _suggest(trial, name, **domain) for name, domain in TASKS[job.task].space.items()}
        best = math.inf
        for epoch, (loss, _) in enumerate(train(job.task, params, 1000 * job.seed + trial.number)):
            used[0] += 1
            best = min(best, loss)
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    def stop(study: optuna.Study, trial: Any) -> None:
        if used[0] + EPOCHS > BUDGET:
            study.stop()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=job.seed)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, callbacks=[stop])
    return {"params": json.dumps(study.best_params), "epochs": used[0], "trials": len(study.trials)}


def random_trial(job: Job) -> dict[str, Any]:
    """One random trial, which trains all its epochs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=job.seed))
    params = study.ask(Space(TASKS[job.task].space).to_distributions()).params
    loss, accuracy = min(train(job.task, params, job.seed))
    return {"params": json.dumps(params), "loss": loss, "accuracy": accuracy}


def fresh_training(job: Job) -> dict[str, Any]:
    """Loss and accuracy of a configuration with a seed that no search had, at the epoch with the lowest loss."""
    loss, accuracy = min(train(job.task, json.loads(job.params), _FRESH + job.seed))
    return {"loss": loss, "accuracy": accuracy}


@functools.cache
def _code(ours: bool) -> str:
    """A fingerprint of the files."""
    package = Path(lightning_trainingkit.__file__).parent
    files = [Path(__file__).with_name("budget_tasks.py"), *(sorted((package / "tuning").glob("*.py")) if ours else ())]
    return hashlib.sha1(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _suggest(trial: optuna.Trial, name: str, low: float, high: float, log: bool = False, integer: bool = False) -> Any:
    return (trial.suggest_int if integer else trial.suggest_float)(name, low, high, log=log)


KINDS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "seven steps": our_search,
    "plain Optuna": plain_optuna,
    "random trial": random_trial,
    "fresh training": fresh_training,
}
