"""Folds and members as trials in real processes, forked from a small one: see ``folds_in_processes.py``."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import lightning_trainingkit as kit
from lightning_trainingkit._lightning import L
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.tuning import cross_validate, train_members
from tests import process
from tests.toy import ToyModule

SCRIPT = Path(__file__).with_name("folds_in_processes.py")


def found_in(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("found-*.json"))]


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    process.run(
        SCRIPT, folder, "plain", "shared", "pruned", "raises", "ensemble", "members", "dies", folder=process.ROOT
    )
    return folder, found_in(folder)[0]


@pytest.mark.slow
def test_each_example_of_the_train_set_is_validated_once_and_no_other_one(scenarios):
    found = scenarios[1]["plain"]["first"]
    (scores,) = found["configurations"]
    values = [scores["values"][str(fold)] for fold in range(4)]
    assert sum(values[:2]) == sum(values[2:]) == sum(range(24))
    assert len(set(values)) > 2
    assert scores["score"]["mean"] == pytest.approx(sum(values) / 4)
    assert found["verdict"] == "pass"
    assert "val/sum is 138 ± " in found["message"]
    assert "(95 % interval, 2 folds x 2)" in found["message"]


@pytest.mark.slow
def test_the_same_call_trains_nothing_again_and_another_one_is_refused(scenarios):
    plain = scenarios[1]["plain"]
    assert plain["again"]["configurations"] == plain["first"]["configurations"]
    assert plain["again"]["notes"][0].startswith("4 trainings were there before")
    folds, seed, epochs = (each["error"] for each in plain["refused"])
    assert "`folds` must be the one that 'plain' has in the storage, 2, got 3" in folds
    assert "`seed` must be the one that 'plain' has in the storage, 0, got 1" in seed
    assert "`max_epochs` must be the one that 'plain' has in the storage, 2, got 3" in epochs
    assert "`folder` must be free, or of the study 'other', got plain of 'plain'" in scenarios[1]["shared"]["error"]


@pytest.mark.slow
def test_a_loser_is_not_trained_on_all_folds_and_a_failure_is_told(scenarios):
    found = scenarios[1]["pruned"]
    assert [each["state"] for each in found["configurations"]] == ["completed", "failed", "pruned"]
    assert [len(each["values"]) for each in found["configurations"]] == [5, 0, 4]
    assert (found["best"], found["trained"], found["verdict"]) == (0, 10, "warn")
    assert 'raise ArithmeticError("nothing works")' in found["configurations"][1]["error"]
    assert "The same `name` keeps the failure: give another `name` and `folder`" in found["advice"]
    assert found["notes"][-1] == "Configuration 1 failed: ArithmeticError: nothing works"
    assert found["notes"][-2].startswith(
        "10 of 15 trainings ran. Pruning can save at most 13%. Wilcoxon's test can prune"
    )
    assert [row["configuration"] for row in found["rows"]] == ["0 (lr=0.0)", "2 (lr=1.0)", "1 (lr=9.0)"]


@pytest.mark.slow
def test_if_all_fail_the_first_error_ends_it(scenarios):
    error = scenarios[1]["raises"]["error"]
    assert error.startswith("RuntimeError: `module` must train, got 3 failed trials")
    assert error.rstrip().endswith("ArithmeticError: nothing works")


@pytest.mark.slow
def test_fold_models_are_ready_for_an_ensemble_and_their_runs_are_a_group(scenarios):
    folder, found = scenarios
    assert [Path(each).name for each in found["ensemble"]["checkpoints"]] == ["final.ckpt"] * 2
    runs, _ = gather([folder / "ensemble"])
    assert {(run.group, run.state) for run in runs} == {("ensemble", "finished")}
    assert sorted(run.name for run in runs) == ["fold=0", "fold=1"]


@pytest.mark.slow
def test_a_member_is_the_training_of_its_seed_and_more_members_join(scenarios):
    folder, found = scenarios
    members = found["members"]
    assert members["first"] == ["members/seed-5", "members/seed-6"]
    assert members["more"] == ["members/seed-5", "members/seed-6", "members/seed-7"]
    assert members["difference"] == 0
    assert "`seed` must be the one that 'toys' has in the storage, 5, got 4" in members["refused"]
    runs, _ = gather([folder / "members"])
    assert sorted((run.group, run.name) for run in runs) == [("toys", f"seed={seed}") for seed in (5, 6, 7)]


@pytest.mark.slow
def test_a_member_that_died_has_the_best_weights_of_its_first_attempt(scenarios):
    dies = scenarios[1]["dies"]
    assert dies["best"]["top_k"][0]["epoch"] == 0
    assert "dies/trial-0000/attempt-0/best.ckpt" in dies["files"]
    assert "dies/trial-0000/attempt-1/best.ckpt" not in dies["files"]


@pytest.mark.slow
def test_two_workers_run_one_race(tmp_path):
    workers = [process.Process(SCRIPT, tmp_path, "race", folder=process.ROOT) for _ in range(2)]
    for worker in workers:
        done = worker.wait()
        assert done.returncode == 0, done.stderr[-3000:]
    one, other = (each["race"] for each in found_in(tmp_path))
    assert one["configurations"] == other["configurations"]
    assert one["trained"] == 4 * 3 + 1
    attempts = sorted(path.parent.name for path in (tmp_path / "race").glob("trial-*/attempt-0"))
    assert attempts == [f"trial-{number:04d}" for number in range(13)]


class NoTrainSet(L.LightningDataModule):
    pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"configurations": []}, "`configurations` must hold dicts, at least one"),
        ({"configurations": [{"rate": 1}]}, "must name hyperparameters of the module or the data, got 'rate'. There"),
        ({"configurations": [{"lr": 1}, {"lr": 1}]}, "must hold each configuration once"),
        ({"data": NoTrainSet()}, "`data` must have a train set, got NoTrainSet"),
        ({"groups": "patients"}, "`groups` must name an attribute of the train set"),
        ({"folds": 200}, "at most the size of the rarest class, got 200"),
        ({"monitor": "val/acc"}, "`mode` must be given for 'val/acc', which by its name is a score"),
        ({"max_epochs": 0}, "`max_epochs` must be at least 1"),
        ({"trainer_options": {"max_epochs": 3}}, "`trainer_options` must not hold max_epochs"),
    ],
)
def test_bad_input_is_refused_before_a_training(options, said):
    options = {"max_epochs": 1, "data": kit.DigitsDataModule()} | options
    with pytest.raises(ValueError, match=said):
        cross_validate(ToyModule(), options.pop("data"), **options)
    assert not Path("runs").exists()


@pytest.mark.parametrize("call", [train_members, cross_validate])
def test_the_answer_of_another_module_trainer_or_callback_is_not_returned(tmp_path, monkeypatch, call):
    home = import_module(call.__module__)
    monkeypatch.setattr(home, "run_trials", interrupted)
    options = {"max_epochs": 1, "folder": tmp_path, "wandb": "disabled"}
    data = kit.DigitsDataModule(64)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            call(ToyModule(0.1), data, trainer_options={"precision": 32}, **options)
    with pytest.raises(ValueError, match=r"`fixed.lr` must be the one that .* has in the storage, 0.1, got 0.5"):
        call(ToyModule(0.5), data, trainer_options={"precision": 32}, **options)
    with pytest.raises(ValueError, match=r"`trainer_options.precision` must be the one that .*, 32, got None"):
        call(ToyModule(0.1), data, **options)
    with pytest.raises(ValueError, match=r"`callbacks` must be the one that .*, \[\], got \['Callback'\]"):
        call(ToyModule(0.1), data, trainer_options={"precision": 32}, callbacks=[L.Callback()], **options)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"folds": 3}, "`folds` must be .*, 2, got 3"),
        ({"repeats": 2}, "`repeats` must be .*, 1, got 2"),
        ({"stratify": False}, "`stratify` must be .*, True, got False"),
        ({"groups": [each // 5 for each in range(24)]}, "`groups` must be .*, None, got '24 groups"),
        ({"configurations": [{"lr": 0.1}, {"lr": 0.2}]}, "`configurations` must be "),
    ],
)
def test_another_division_is_refused_under_its_own_name(tmp_path, monkeypatch, option, said):
    monkeypatch.setattr(import_module(cross_validate.__module__), "run_trials", interrupted)
    options = {"max_epochs": 1, "folder": tmp_path, "wandb": "disabled", "folds": 2}
    with pytest.raises(KeyboardInterrupt):
        cross_validate(ToyModule(), Few(), **options)
    with pytest.raises(ValueError, match=said):
        cross_validate(ToyModule(), Few(), **options | option)


class Few(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(24, 1), torch.arange(24) % 2), 4, shuffle=True)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_bad_members():
    with pytest.raises(ValueError, match="`members` must be at least 1, got 0"):
        train_members(ToyModule(), kit.DigitsDataModule(), 0, max_epochs=1)
    with pytest.raises(ValueError, match="`mode` must be given for 'val/acc'"):
        train_members(ToyModule(), kit.DigitsDataModule(), max_epochs=1, monitor="val/acc")
    with pytest.raises(ValueError, match="got NoTrainSet without `train_dataloader`"):
        train_members(ToyModule(), NoTrainSet(), max_epochs=1)
