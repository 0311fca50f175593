"""Searches and the loop in real processes: see ``searches_in_processes.py``."""

import json
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_trainingkit._lightning import L
from lightning_trainingkit.dashboards.local import collect
from lightning_trainingkit.tuning import coarse_search, load_report, seven_steps
from lightning_trainingkit.tuning.searches.search_run import Search, search_result
from tests import process
from tests.toy import ToyModule
from tests.tuning.searches.searches_in_processes import Data, Module


class Callback(L.Callback):
    def __init__(self, hook):
        self.hook = hook


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    process.run(Path(__file__).with_name("searches_in_processes.py"), folder, folder=process.ROOT)
    return json.loads((folder / "found.json").read_text()) | {"folder": folder}


@pytest.mark.slow
def test_a_coarse_search_finds_the_rate_and_a_refined_one_goes_on_there(found):
    coarse, refined = found["searches"]["coarse"], found["searches"]["refined"]
    assert coarse["line"].split(".")[0] in ("pass", "warn")
    assert set(coarse["best"]) == {"lr", "weight_decay"}
    assert (
        0.01 <= min(each["lr"] for each in coarse["params"]) < 0.05 < max(each["lr"] for each in coarse["params"]) <= 1
    )
    assert refined["params"][0] == coarse["best"]
    assert refined["value"] < coarse["value"]  # one epoch more, and no decay of the rate
    low, high = coarse["next"]["lr"]["low"], coarse["next"]["lr"]["high"]
    assert all(low <= each["lr"] <= high for each in refined["params"])
    assert refined["lines"]["divergence"].startswith("pass. 0 of 4")
    assert "## Step 5: refined search (`refine`)" in refined["report"]


@pytest.mark.slow
def test_a_finished_search_is_read_and_other_settings_are_refused(found):
    searches = found["searches"]
    assert searches["again"] == searches["coarse"]
    assert searches["refused"].startswith("`epochs` must be the one that 'coarse' has in the storage, 2, got 3.")


@pytest.mark.slow
def test_the_seven_steps_run_in_their_order_and_leave_their_files(found):
    loop, folder = found["loop"], found["folder"] / "loop"
    assert loop["steps"][:6] == [
        *("initial_loss", "small_sample", "learning_rate", "coarse_search", "refine_search", "curves")
    ]
    assert loop["trials"] == [4, 4, 4]
    assert len(loop["values"]) >= 1
    assert loop["ended"]
    assert loop["loaded"] == [True, True, True]
    report = (folder / "report.md").read_text()
    assert loop["command"] in report
    assert all(f"| {number}: " in report for number in range(1, 8))
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "dashboard.html").stat().st_size > 10_000
    assert "lr: " in (folder / "best.yaml").read_text()


@pytest.mark.slow
def test_the_command_center_shows_the_verdicts_of_each_search(found):
    data = collect([found["folder"] / "loop"], target="val/loss", better="min")
    searches = {each["title"]: each["searches"] for each in data["judged"]}
    assert list(searches) == ["all-coarse", "all-refine-1", "all-refine-2", "all"]
    assert searches["all"]["search"] == found["loop"]["line"]  # the newest: the page begins with it
    assert searches["all-coarse"]["divergence"] == "pass. 0 of 4 trials diverged."
    assert data["hyperparameters"][:2] == ["lr", "weight_decay"]
    assert not [name for name in data["settings"] if name.startswith("search.")]


@pytest.mark.slow
def test_the_search_ends_where_a_step_fails(found):
    line, steps, searches = found["loop"]["failed"]
    assert line.startswith("fail. Step 1 failed. Nothing was searched.")
    assert (steps, searches) == (["initial_loss"], 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"trainer_options": {"max_epochs": 3}}, "`trainer_options` must not hold max_epochs, got 3. Give it to"),
        (
            {"trainer_options": {"precisions": 16}},
            "`trainer_options` must hold .* got 'precisions'. There are: precision,",
        ),
        ({"callbacks": [Callback(hook=lambda: None)]}, "`callbacks` must be picklable, got Callback: .* Write classes"),
        (
            {"callbacks": [EMAWeightAveraging()]},
            r"`callbacks` must be picklable, got EMAWeightAveraging: .* give WeightAveraging\(avg_fn=f\), as",
        ),
        ({"callbacks": [Callback]}, r"`callbacks` must hold objects, got the class Callback. Write Callback\(\)\."),
        ({"callbacks": ["Callback"]}, "`callbacks` must hold callbacks of lightning.pytorch, got 'Callback'."),
        ({"trainer_options": {"logger": lambda: 0}}, "`trainer_options` must be picklable, got logger=<function"),
        ({"sampler": "tp"}, "`sampler` must be one of 'quasi-random', "),
        ({"sampler": "grid"}, "`sampler` must choose other points in each round, got 'grid'"),
        ({"pruner": "mean"}, "`pruner` must be one of 'median', "),
        ({"jobs": 0}, "`jobs` must be at least 1, got 0."),
        ({"devices": 0}, "`devices` must be at least 1, got 0."),
        ({"wandb": "off"}, "`wandb` must be one of 'offline', "),
        ({"round_epochs": 0}, "`round_epochs` must be at least 1, got 0."),
        ({"coarse_trials": 2.5}, "`coarse_trials` must be an integer, got 2.5."),
        ({"mode": "up"}, "`mode` must be"),
    ],
)
def test_the_seven_steps_refuse_arguments_of_later_steps_before_step_1(tmp_path, wrong, said):
    with pytest.raises((TypeError, ValueError), match=said):
        seven_steps(Module, Data, **{"output": tmp_path / "x", "wandb": "disabled"} | wrong)
    assert not (tmp_path / "x").exists()


def test_what_is_refused_before_any_training(tmp_path):
    options = {"output": tmp_path / "x", "wandb": "disabled"}
    with pytest.raises(ValueError, match="`space` must name hyperparameters of the module or the data, got 'width'"):
        coarse_search(Module, Data, space={"width": [1, 2]}, **options)
    with pytest.raises(ValueError, match="reversed"):
        coarse_search(Module, Data, space={"lr": {"low": 1.0, "high": 0.1}}, **options)
    with pytest.raises(ValueError, match="`space` must hold a hyperparameter"):
        seven_steps(Module, Data, space={}, **options)
    with pytest.raises(ValueError, match="`mode` must be given for 'val/acc'"):
        seven_steps(Module, Data, monitor="val/acc", **options)
    with pytest.raises(ValueError, match="`trials` must be at least 6 for a grid"):
        coarse_search(Module, Data, trials=3, sampler="grid", **options)
    with pytest.raises(TypeError, match=r"`callbacks` must be a list of callbacks, got <.*Callback object"):
        coarse_search(Module, Data, callbacks=Callback(None), **options)
    with pytest.raises(ValueError, match=r"`storage` must be where the search is, got .*x, which does not exist\."):
        load_report(tmp_path / "x", "me")
    with pytest.raises(ValueError, match="`data` must be given"):
        seven_steps(ToyModule, **options)
    assert not (tmp_path / "x").exists()


def test_callbacks_that_no_file_holds_are_told(tmp_path):
    options = {"space": None, "rate": None, "trials": 2, "epochs": 1, "monitor": "val/loss", "mode": None}
    options |= {"sampler": "random", "pruner": "none", "storage": None, "name": "told", "seed": 0, "wandb": "disabled"}
    for callbacks, told in (((), []), ((EMAWeightAveraging(),), ["EMAWeightAveraging"])):
        output = tmp_path / str(len(told))
        search = Search(
            "coarse_search", Module, Data, **options, output=output, trainer_options={}, callbacks=callbacks
        )
        notes = search_result(search.study, search.settings, output).notes
        assert told == [note.partition("search: ")[2].partition(".")[0] for note in notes if "callbacks" in note]
