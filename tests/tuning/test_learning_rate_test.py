"""The callback finds a rate at the start of a fresh fit, and the fit is the one without it, but for the rate."""

import sys
import warnings
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_trainingkit import InitOverride, Mixup
from lightning_trainingkit._lightning import L
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.tuning import LearningRateTest, rate_search
from lightning_trainingkit.tuning._lightning import options_of_fit
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer

QUICK = {"candidates": [0.1], "verbose": False}


@pytest.fixture(autouse=True)
def _short_trials(monkeypatch):
    monkeypatch.setattr(rate_search, "ITERATIONS", 40)


def fit(*callbacks, make=ToyModule, **options):
    L.seed_everything(0, verbose=False)
    module = make()
    trainer = toy_trainer(*callbacks, **options)
    trainer.fit(module, *toy_loaders())
    return module, trainer


def test_a_fit_that_does_not_apply_the_rate_is_the_fit_without_it():
    options = {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2}
    alone, _ = fit(**options)
    test = LearningRateTest(**QUICK, apply=False)
    tested, _ = fit(test, **options)
    assert difference(alone.state_dict(), tested.state_dict()) == 0
    assert test.rate > 0


def test_the_schedule_scales_with_the_rate():
    test = LearningRateTest(**QUICK)
    tested, trainer = fit(test)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(test.rate * 0.7**2)
    by_hand, _ = fit(make=lambda: ToyModule(lr=test.rate))
    assert test.rate != 0.1
    assert difference(tested.state_dict(), by_hand.state_dict()) < 1e-6


def test_loggers_get_the_verdict(tmp_path):
    test = LearningRateTest(**QUICK)
    _, trainer = fit(test, logger=CSVLogger(tmp_path, version=0), max_epochs=1)
    trainer.logger.save()
    ((run,), _) = gather([tmp_path])
    assert run.config["check.learning_rate"] == test.found.line
    assert run.config["check.learning_rate.SGD"] == pytest.approx(test.rate)


def test_a_resumed_run_keeps_its_rate(tmp_path):
    test = LearningRateTest(**QUICK)
    _, trainer = fit(test, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = LearningRateTest(**QUICK)
    resumed = toy_trainer(again)
    resumed.fit(ToyModule(), *toy_loaders(), ckpt_path=tmp_path / "last.ckpt")
    assert (again.found, again.rate) == (None, test.rate)
    assert resumed.optimizers[0].param_groups[0]["lr"] == pytest.approx(test.rate * 0.7**2)


def test_the_next_fit_of_a_trainer_keeps_the_rate_and_a_fresh_one_searches_again():
    test = LearningRateTest(**QUICK)
    module, trainer = fit(test, max_epochs=1)
    first = test.found
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, *toy_loaders())
    assert test.found is first
    assert trainer.optimizers[0].param_groups[0]["initial_lr"] == pytest.approx(test.rate)
    fit(test, max_epochs=1)
    assert test.found is not first


def test_trials_start_from_the_initialised_weights():
    test = LearningRateTest(**QUICK, apply=False)
    fit(InitOverride({"net.5": "zeros"}, verbose=False), test)
    assert test.found.trials[0].losses[0] == pytest.approx(0.6931, abs=1e-4)


class MadeInSetup(ToyModule):
    """Makes its layers in ``setup``, each time."""

    def setup(self, stage):
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        nn.init.constant_(self.net[1].weight, 1.0)
        nn.init.zeros_(self.net[1].bias)


def test_a_module_that_makes_its_layers_in_setup():
    test = LearningRateTest(**QUICK, apply=False)
    fit(test, make=MadeInSetup)
    assert test.found.trials[0].losses[0] == pytest.approx(0.6931, abs=1e-4)  # all units are equal


class Constant(ToyModule):
    """Its loss does not depend on the weights."""

    def training_step(self, batch, batch_idx):
        return 0 * super().training_step(batch, batch_idx) + 1


def test_no_rate_lowers_the_loss():
    with pytest.raises(ValueError, match="`configure_optimizers` must allow a learning rate that lowers the loss"):
        fit(LearningRateTest(**QUICK), make=Constant)


def test_sharded_strategies_are_refused():
    with pytest.raises(TypeError, match="`strategy` must be a single device or DDP beside LearningRateTest"):
        options_of_fit(SimpleNamespace(strategy=object()))


def test_bad_arguments():
    with pytest.raises(ValueError, match="`candidates` must grow"):
        LearningRateTest([0.1, 0.01])
    with pytest.raises(TypeError, match="`apply` must be True or False"):
        LearningRateTest(apply=1)


def test_a_step_that_takes_soft_targets_alone():
    class Soft(ToyModule):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch[0], batch[1].argmax(1)), batch_idx)

    with warnings.catch_warnings(record=True) as caught, pytest.raises(IndexError) as raised:
        fit(Mixup(2, targets="soft"), LearningRateTest(**QUICK), make=Soft)
    notes = raised.value.__notes__ if sys.version_info >= (3, 11) else [str(each.message) for each in caught]
    assert "tries rates on the DataLoader's own batches, without Mixup" in notes[0]
