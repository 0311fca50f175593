"""What a worker does besides its trials. No process is started."""

import pickle
from types import SimpleNamespace

import pytest

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning import trial_process, trial_server, worker
from lightning_trainingkit.tuning.searches.budget import Budget
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_job import TrialJob

SPACE = Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True}})


@pytest.fixture
def join(tmp_path):
    return lambda: Study(tmp_path / "study.log", "demo", SPACE, 4)


def run(study, folder, **options):
    source = Source(dict, given={}, names=("lr",), describe="nothing")
    options = {"heartbeat": 0.01, "verbose": False, "accelerator": "cpu"} | options
    run_trials(study, source, TrialJob(max_epochs=3), folder=folder, **options)


def test_a_budget_of_epochs_waits_for_the_trials_of_other_workers(join):
    mine, other = join(), join()
    stop = Budget(None, 8, None).stop(3)
    first, theirs = mine.attempts.claim(), other.attempts.claim()
    mine.attempts.complete(first, 0.5, {"epochs": 3})
    assert stop(mine) is None  # 3 are trained, 3 run, 3 more would be 9
    other.attempts.report(theirs, 1, 0.7)
    other.attempts.prune(theirs, {"epochs": 1})
    assert stop(mine) is False
    mine.attempts.complete(mine.attempts.claim(), 0.4, {"epochs": 3})
    assert stop(mine) is stop(other) is True  # both leave, with the same results
    assert Budget(None, 8, 1e-9).stop(3)(other) is True  # hours are each worker's own


def test_a_worker_stays_until_no_trial_can_follow(join, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_server, "start_method", "fork")
    study, other = join(), join()
    theirs, asked = other.attempts.claim(), []

    def stop(study):
        asked.append(study.counts()["running"])
        if len(asked) == 3:
            other.attempts.complete(theirs, 0.5)
        return None if asked[-1] else True

    run(study, tmp_path, stop=stop)
    assert asked == [1, 1, 1, 0]


def test_no_ticket_is_claimed_while_the_server_imports(join, tmp_path, monkeypatch):
    study, seen = join(), []

    def slow_import(context, with_main):
        seen.append(study.counts()["running"])
        raise SystemExit

    monkeypatch.setattr(worker, "start_server", slow_import)
    with pytest.raises(SystemExit):
        run(study, tmp_path)
    assert seen == [0]


@pytest.mark.parametrize(
    ("error", "code", "kinds"),
    [(L.utilities.exceptions.SIGTERMException(), 143, []), (SystemExit(3), 1, ["failed"])],
)
def test_a_terminated_trial_says_nothing_so_that_it_is_tried_again(monkeypatch, error, code, kinds):
    def raises(*_):
        raise error

    def leave(code):
        raise RuntimeError(code)

    said = []
    for name, value in {"_become": id, "_end_with": id, "_train": raises, "_leave": leave}.items():
        monkeypatch.setattr(trial_process, name, value)
    order = SimpleNamespace(worker=1, rank=0, source=pickle.dumps(1), job=pickle.dumps(1))
    with pytest.raises(RuntimeError) as left:
        trial_process.run_trial(SimpleNamespace(send=lambda message: said.append(message[0])), order)
    assert (left.value.args, said) == ((code,), kinds)
