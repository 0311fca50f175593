from lightning_trainingkit.tuning import earlier_results
from lightning_trainingkit.tuning.searches.earlier_results import add_earlier
from lightning_trainingkit.tuning.trials.study import Study
from tests.tuning.searches.made_search import SPACE, result, results


def test_two_workers_add_earlier_results_once(tmp_path, monkeypatch):
    earlier = [*results(lambda point: point["drop"], 3), result(3, {"lr": 1e-3, "drop": 0.1}, None, "failed")]
    made, other, third = (Study(tmp_path / "study.log", "demo", SPACE, 0) for _ in range(3))
    monkeypatch.setattr(earlier_results, "_WAIT", 0.0)

    def values():
        return sorted(each.value for each in made.optuna.trials)

    add_earlier(made, SPACE, earlier[:1])  # then it is killed
    add_earlier(other, SPACE, earlier)
    add_earlier(third, SPACE, earlier)
    assert values() == sorted(each.value for each in earlier[:3])
    assert made.results() == []


def test_a_worker_that_joins_waits_for_the_one_that_made_the_study(tmp_path, monkeypatch):
    earlier = results(lambda point: point["drop"], 2)
    made, other = (Study(tmp_path / "study.log", "demo", SPACE, 0) for _ in range(2))
    monkeypatch.setattr(earlier_results.time, "sleep", lambda _: add_earlier(made, SPACE, earlier))
    add_earlier(other, SPACE, earlier)
    assert len(made.optuna.trials) == 2
