"""What the searches take from steps 1 to 3. The steps are planned: nothing trains."""

from types import SimpleNamespace

import pytest

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.searches import seven_steps_loop
from lightning_trainingkit.tuning.searches.first_steps import FirstSteps, run_first_steps
from lightning_trainingkit.tuning.searches.own_rate import own_rate, start_space
from lightning_trainingkit.tuning.searches.shared_note import read_note
from lightning_trainingkit.tuning.trials.source import Source, make_source
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError
from lightning_trainingkit.tuning.verdict import Verdict
from tests.toy import ToyModule, toy_loaders


def steps(verdict="pass", factor=0.1):
    return FirstSteps((Verdict(step="initial_loss", verdict=verdict, message="It is so."),), factor, 10, 2)


@pytest.mark.parametrize(("lr", "rate"), [(1.0, 0.1), (1, 0.1), (None, 1e-4)])
def test_the_rate_of_step_3_is_that_multiple_of_the_modules_own(lr, rate):
    source = Source(dict, given={"lr": lr}, names=("lr",), describe="")
    assert own_rate(source, start_space(source), steps()) == rate
    assert own_rate(source, start_space(source), steps(factor=None)) is None


class TrainAlone(L.LightningDataModule):
    def train_dataloader(self):
        return toy_loaders()[0]


class Unvalidated(ToyModule):
    validation_step = L.LightningModule.validation_step


@pytest.mark.parametrize(
    ("module", "said"),
    [(ToyModule, "TrainAlone without `val_dataloader`"), (Unvalidated, "Unvalidated without `valid")],
)
def test_a_module_or_data_without_validation_is_refused_before_step_1(module, said):
    with pytest.raises(WrongSetupError, match=f"`monitor` must be logged in validation, got {said}"):
        run_first_steps(make_source(module, TrainAlone), None, {}, "cpu", 0)


def test_steps_that_failed_run_again_at_the_next_call(tmp_path, monkeypatch):
    loop = SimpleNamespace(
        source=Source(dict, given={}, names=(), describe="Net on Data"),
        start={},
        search={"trainer_options": None},
        run_options={"accelerator": "cpu"},
        seed=0,
        storage=tmp_path / "study.log",
        name="all",
    )
    planned = [steps("fail"), steps("pass"), steps("fail")]
    monkeypatch.setattr(seven_steps_loop, "run_first_steps", lambda *_: planned.pop(0))
    verdicts = [seven_steps_loop.Loop._first_steps(loop).verdicts[0].verdict for _ in range(3)]
    assert verdicts == ["fail", "pass", "pass"]
    assert len(planned) == 1
    assert read_note(loop.storage, "all")["verdicts"][0]["verdict"] == "pass"
