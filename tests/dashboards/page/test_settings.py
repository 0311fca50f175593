import math

from lightning_trainingkit.dashboards.page.settings import columns, every_setting, hyperparameters, shared_settings
from tests.dashboards.made import grid


def settings(**by_run):
    """Columns of four trainings, each with the given settings; values are lists, one value a run."""
    runs = grid()[:4]
    for place, run in enumerate(runs):
        run.config = {name.replace("__", "."): values[place] for name, values in by_run.items()}
    return columns(every_setting(runs), runs)


def test_equal_columns_are_one_and_the_shortest_name_stays():
    rates = [0.1, 0.2, 0.1, 1]
    found = settings(net__opt__lr=rates, learning_rate=rates, lr=rates, optimizers__0__lr=[0.1, 0.2, 0.1, 1.0])
    assert found == {"lr": rates}
    assert set(settings(lr=rates, width=[1, 2, 1, 3])) == {"lr", "width"}
    assert set(settings(flag=[True, False, True, False], count=[1, 0, 1, 0])) == {"flag", "count"}


def test_seeds_stay():
    folds = [0, 1, 2, 3]
    assert set(settings(fold=folds, seed=folds, trainer__seed=folds, data__split_seed=[1, 1, 2, 2])) == {
        *("fold", "seed", "data.split_seed")
    }


def test_an_optimizers_copy_goes_where_runs_lack_it_and_stays_where_it_differs():
    rates = [0.1, 0.2, 0.1, 0.3]
    assert set(settings(lr=rates, optimizers__0__lr=[0.1, None, 0.1, 0.3])) == {"lr"}
    assert set(settings(hparams__lr=rates, optimizers__1__lr=[None, 0.2, 0.1, 0.3])) == {"hparams.lr"}
    assert set(settings(lr=rates, optimizers__0__lr=[0.1, None, 0.1, 0.4])) == {"lr", "optimizers.0.lr"}
    assert set(settings(lr=[0.1, None, 0.1, 0.3], optimizers__0__lr=rates)) == {"lr", "optimizers.0.lr"}


def test_an_optimizers_name_is_no_copy_of_what_a_run_is_called():
    names = ["SGD", "AdamW", "SGD", "AdamW"]
    assert settings(optimizers__0__name=names, callbacks__CommandCenter__name=names) == {"optimizers.0.name": names}


def test_what_only_tells_runs_apart_is_no_column():
    names = ["a", "b", "c", "d"]
    unique = {
        "callbacks__CommandCenter__name": names,
        "callbacks__CommandCenter__group": ["g", "g", "h", "h"],
        "callbacks__ModelCheckpoint__dirpath": ["/r/1", "/r/1", "/r/2", None],
        "log_dir": ["/runs/1", "/runs/2", "/runs/3", None],
        "bucket": [f"s3://x/{each}" for each in names],
        "when": [f"2026-01-0{each} 10:00" for each in range(4)],
        "stamp": [f"2026010{each}-101500" for each in range(4)],
        "token": [f"0000000{each}-1111-2222-3333-444444444444" for each in range(4)],
        "slurm__job_id": [101, 102, 103, 104],
        "run_name": [run.name for run in grid()[:4]],
        "experiment__id": [run.id for run in grid()[:4]],
    }
    assert settings(**unique, width=[1, 2, 3, 4]) == {"width": [1, 2, 3, 4]}


def test_what_may_matter_stays_a_column():
    kept = {
        "model__name": ["lr=0.0003", "lr=0.001", "lr=0.01", "lr=0.03"],  # the runs' own names
        "arch": ["resnet18", "resnet34", "resnet50", "vit"],
        "config": ["configs/a.yaml", "configs/b.yaml", "configs/c.yaml", "configs/d.yaml"],
        "class_id": [1, 2, 3, 4],
        "train_time": [1.0, 2.0, 3.0, 4.5],
        "versions__torch": ["2.1", "2.1", "2.2", "2.2"],
        "callbacks__EarlyStopping__patience": [1, 1, 2, 3],
    }
    assert set(settings(**kept)) == {name.replace("__", ".") for name in kept}


def test_paths_lose_the_folder_that_all_share():
    found = settings(
        data=["/home/me/data/cifar10", "/home/me/data/cifar100", "/home/me/data/cifar10", None],
        deep=["/a", "/a/b/c", "/a/b", "/a/b"],
        windows=["C:\\data\\x", "C:\\data\\y", "C:\\data\\x", "C:\\data\\y"],
        mixed=["/data/x", "none", "/data/x", "none"],
    )
    assert found == {
        "data": ["cifar10", "cifar100", "cifar10", None],
        "deep": ["a", "a/b/c", "a/b", "a/b"],
        "windows": ["x", "y", "x", "y"],
        "mixed": ["/data/x", "none", "/data/x", "none"],
    }


def test_two_runs_may_differ_in_a_path_alone():
    runs = grid()[:2]
    for run, data in zip(runs, ("/data/old", "/data/new"), strict=True):
        run.config = {"data": data}
    assert columns(every_setting(runs), runs) == {"data": ["old", "new"]}


def test_what_a_training_without_command_center_cannot_know_does_not_differ():
    runs = grid()[:4]
    for run in runs:
        run.config = {"lr": 0.1}
    for run in runs[:2]:
        run.config |= {"versions.torch": "2.1", "trainer.max_epochs": 5, "model": "Net"}
    every = every_setting(runs)
    assert columns(every, runs) == {}
    assert set(shared_settings(every, runs)) == {"lr", "versions.torch", "trainer.max_epochs", "model"}
    runs[0].config["callbacks.EarlyStopping.patience"] = 3
    assert list(columns(every_setting(runs), runs)) == ["callbacks.EarlyStopping.patience"]


def test_hyperparameters_are_numbers_and_words_that_runs_share():
    values = {"lr": [0.1, 0.2, 0.1, 0.2], "net.lr": [0.1, 0.2, 0.1, 0.2], "word": ["a", "b", "a", "b"]}
    assert hyperparameters(values | {"unique": list("abcd"), "same": [1] * 4, "secret": ["***a", "***b"] * 2}) == [
        *("lr", "word")
    ]


def test_what_is_no_number_is_a_word():
    runs = grid()[:2]
    runs[0].config["x"], runs[1].config["x"] = math.inf, 1.0
    assert every_setting(runs)["x"] == ["inf", 1.0]
