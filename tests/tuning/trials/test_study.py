"""The tickets of a study, as workers on one journal see them. No training runs."""

from types import SimpleNamespace

import optuna
import pytest

from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.storage import patient
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.tickets import Ticket

SPACE = Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True}, "act": ["relu", "gelu"]})


@pytest.fixture
def join(tmp_path):
    """Join the study of this test as one more worker."""
    return lambda trials=3, **options: Study(tmp_path / "study.log", "demo", SPACE, trials, **options)


def finish_all(study):
    while (attempt := study.attempts.claim()) is not None:
        study.attempts.complete(attempt, attempt.params["lr"])


def test_the_total_is_counted_over_all_workers(join):
    first, second = join(), join()
    mine, yours = first.attempts.claim(), second.attempts.claim()
    assert {mine.ticket, yours.ticket} == {0, 1}
    assert first.attempts.complete(mine, 0.1)
    assert second.attempts.complete(yours, 0.2)
    finish_all(first)
    assert second.attempts.claim() is None
    assert second.is_done()
    assert second.counts() == first.counts()
    assert second.counts()["completed"] == second.counts()["total"] == 3
    more = join(5)
    finish_all(more)
    assert first.counts()["completed"] == 5
    assert join(2).counts()["total"] == 5  # nothing is lost


def test_of_twins_the_first_is_real(join):
    study = join(1)
    for _ in range(2):  # as two workers do that create the same ticket at once
        study.all_attempts.add({"ticket": 0, "attempt": 0, "deaths": 0}, {}, {}, {})
    finish_all(study)
    assert (study.counts()["total"], len(study.results())) == (1, 1)
    states = [each.state.name for each in study.optuna.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL"]
    assert all(each.user_attrs["surplus"] for each in study.optuna.trials[1:])


def test_a_dead_attempt_is_tried_again_with_its_hyperparameters(join):
    killed, other = join(1), join(1)
    lost = killed.attempts.claim()
    killed.attempts.report(lost, 1, 0.5)
    other.all_attempts.bury(lost.trial, "No heartbeat.")
    again = other.attempts.claim()
    assert (again.ticket, again.number) == (lost.ticket, 1)
    assert (again.params, again.seed, again.reports) == (lost.params, lost.seed, {1: 0.5})
    # The worker lived after all, and comes too late.
    assert killed.attempts.heartbeat([lost]) == [lost]
    assert killed.attempts.report(lost, 2, 0.4) is True
    assert killed.attempts.complete(lost, 0.3) is False
    assert other.attempts.complete(again, 0.2) is True
    assert [each.value for each in killed.results()] == [0.2]
    assert killed.best.attempts == 2


def test_a_ticket_whose_attempts_all_die_is_failed(join):
    study = join(1, retries=2)
    for number in range(3):
        attempt = study.attempts.claim()
        assert attempt.number == number
        study.attempts.die(attempt, "killed by SIGKILL")
    assert study.attempts.claim() is None
    (result,) = study.results()
    assert (result.state, result.error, result.attempts) == ("failed", "killed by SIGKILL", 3)


def test_reports_stand_in_the_order_of_the_epochs():
    trials = [SimpleNamespace(intermediate_values={3: 0.3, 1: 0.1}), SimpleNamespace(intermediate_values={2: 0.2})]
    assert list(Ticket(0, tuple(trials), 2).reports) == [1, 2, 3]  # a database gives its rows in any order


def test_interruptions_are_not_counted_as_deaths(join):
    study = join(1, retries=0)
    for _ in range(3):
        study.attempts.interrupt(study.attempts.claim())
    finish_all(study)
    assert study.counts()["completed"] == 1


def test_an_exception_fails_a_ticket_at_once(join):
    study = join(1)
    study.attempts.fail(study.attempts.claim(), "Traceback: ...")
    assert study.attempts.claim() is None
    assert study.results()[0].error == "Traceback: ..."
    assert study.best is None


def test_points_come_first_and_seeds_belong_to_tickets(join):
    study = join(2, points=[{"lr": 0.05, "act": "gelu"}, {"act": "relu"}], seed=4)
    first, second = study.attempts.claim(), study.attempts.claim()
    assert first.params == {"lr": 0.05, "act": "gelu"}
    assert second.params["act"] == "relu"
    assert first.seed != second.seed
    with pytest.raises(ValueError, match="`points` must lie in the space, got lr=5"):
        join(2, points=[{"lr": 5}])


def test_a_worker_that_dies_while_it_chooses_loses_nothing(join):
    class Broken(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            if name == "act":
                raise SystemExit
            return super().sample_independent(study, trial, name, distribution)

    dying, other = join(1, sampler=Broken(seed=0)), join(1)
    with pytest.raises(SystemExit):
        dying.attempts.claim()
    (half,) = other.optuna.trials
    other.all_attempts.bury(half.number, "No heartbeat.")
    again = other.attempts.claim()
    assert again.params["lr"] == half.params["lr"]
    assert again.params["act"] in ("relu", "gelu")


def test_no_two_workers_draw_the_same(join):
    study, other = join(3), join(3)
    params = [each.attempts.claim().params["lr"] for each in (study, other, study)]
    assert len(set(params)) == 3


def test_a_study_of_another_space_mode_or_program(join, tmp_path, monkeypatch):
    join()
    with pytest.raises(ValueError, match="`mode` must be the one that 'demo' has in the storage, 'min', got 'max'"):
        join(mode="max")
    with pytest.raises(ValueError, match="`seed` must be the one that 'demo' has in the storage, 0, got 1"):
        join(seed=1)
    with pytest.raises(ValueError, match=r"`space` must be the one that 'demo' has in the storage, got \{'lr': "):
        Study(tmp_path / "study.log", "demo", Space({"lr": [1, 2]}), 3)
    optuna.create_study(storage=f"sqlite:///{tmp_path}/foreign.db", study_name="theirs").ask()
    monkeypatch.setattr("lightning_trainingkit.tuning.trials.study._WAIT", 0)
    with pytest.raises(ValueError, match="which another program made"):
        Study(f"sqlite:///{tmp_path}/foreign.db", "theirs", SPACE, 3)


def test_a_study_whose_maker_was_killed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_trainingkit.tuning.trials.study._WAIT", 0)
    optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="demo")
    study = Study(f"sqlite:///{tmp_path}/study.db", "demo", SPACE, 3)
    finish_all(study)
    assert study.counts()["completed"] == 3


def test_trials_of_another_kind_are_refused(join):
    join().check_job({"monitor": "val/acc", "max_epochs": 3})
    join().check_job({"monitor": "val/loss", "max_epochs": 3})  # nothing has been reported yet
    study = join()
    study.attempts.report(study.attempts.claim(), 1, 0.5)
    join().check_job({"monitor": "val/loss", "max_epochs": 3})
    with pytest.raises(ValueError, match="`max_epochs` must be the one that 'demo' has in the storage, 3, got 4"):
        join().check_job({"monitor": "val/loss", "max_epochs": 4})


def test_a_study_in_which_no_trial_can_work_makes_room_for_another(join, tmp_path):
    study = join(mode="min")
    study.give_up()
    running = study.attempts.claim()
    with pytest.raises(ValueError, match="`mode` must be the one that 'demo' has"):
        join(mode="max")  # another worker trains
    study.attempts.fail(running, "ValueError: nothing works")
    loaded = Study.load(tmp_path / "study.log", "demo")  # a report still has the failure
    assert (loaded.is_void, loaded.counts()["failed"]) == (True, 1)
    anew = join(2, mode="max")
    assert (anew.counts()["total"], anew.counts()["failed"], anew.made) == (2, 0, True)
    anew.attempts.report(anew.attempts.claim(), 1, 0.5)
    anew.give_up()
    with pytest.raises(ValueError, match="`mode` must be"):
        join(mode="min")


def test_workers_with_another_module_are_refused(join):
    facts = {"module": "Net on Digits", "fixed": {"width": 64, "layers": [8, 8]}}
    join().check_facts(facts)
    join().check_facts(facts)
    with pytest.raises(ValueError, match=r"`fixed.width` must be the one that 'demo' has in the storage, 64, got 32"):
        join().check_facts(facts | {"fixed": {"width": 32, "layers": [8, 8]}})


def test_loading_a_study_by_its_name(join, tmp_path):
    finish_all(join())
    loaded = Study.load(tmp_path / "study.log", "demo")
    assert loaded.space.version == SPACE.version
    assert loaded.counts()["completed"] == 3
    assert [each.value for each in loaded.ranked()] == sorted(each.value for each in loaded.results())
    with pytest.raises(ValueError, match=r"got 'dmo'\. There are: demo"):
        Study.load(tmp_path / "study.log", "dmo")


def test_loading_a_study_creates_no_trial(tmp_path):
    path = tmp_path / "study.log"
    made = Study(path, "demo", SPACE, 0)  # whose maker is about to create its trials
    assert Study.load(path, "demo").counts()["total"] == 0
    made.owe([{"lr": 0.05}])
    assert Study.load(path, "demo").counts()["total"] == 1
    assert made.attempts.claim().params["lr"] == 0.05


def test_a_value_that_is_not_a_number_cannot_win(join):
    study = join(2)
    diverged = study.attempts.claim()
    study.attempts.report(diverged, 1, float("nan"))
    study.attempts.prune(diverged, {"diverged": True})
    finish_all(study)
    assert study.results()[0].state == "pruned"
    assert study.best.ticket == 1


def test_a_short_failure_of_the_database_is_waited_for():
    from sqlalchemy.exc import OperationalError

    failures = [OperationalError("select", {}, Exception("server closed the connection"))] * 2

    def call():
        if failures:
            raise failures.pop()
        return 3

    assert patient(call) == 3
    with pytest.raises(KeyError):
        patient(lambda: {}["missing"])
    failures[:] = [OperationalError("select", {}, Exception("gone"))] * 9
    with pytest.raises(OperationalError):
        patient(call, seconds=0.3)


def test_an_old_optuna_is_refused(monkeypatch):
    monkeypatch.setattr(optuna, "__version__", "4.6.0")
    with pytest.raises(ImportError, match=r"needs optuna 5 or newer, got 4\.6\.0\. Run: pip install"):
        Study(None, "demo", SPACE, 1)
