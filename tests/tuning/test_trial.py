"""A trial changes nothing of the user's, and each run starts alike."""

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, RandomSampler

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.trial import Trial, stop
from lightning_trainingkit.tuning.trial_copies import copy_data, copy_module
from tests.toy import ToyModule, difference, toy_data, toy_loaders


class Losses(L.Callback):
    """Ends a trial after some steps."""

    def __init__(self, steps):
        self.steps, self.losses, self.rates = steps, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if len(self.losses) >= self.steps:
            stop(trainer)


class NoOptimizer(ToyModule):
    configure_optimizers = L.LightningModule.configure_optimizers


class WithSchedule(ToyModule):
    """Its schedule is as long as the training, its rate is read in the step, and it brings a callback."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def training_step(self, batch, batch_idx):
        assert self.lr_schedulers().get_last_lr() == [0.05]
        self.logger.experiment.add_scalar("loss", 1)
        return super().training_step(batch, batch_idx)

    def configure_callbacks(self):
        raise AssertionError("a trial has no callbacks of the module")


def loader():
    data = toy_data()
    return DataLoader(data, 8, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(1)))


def random_states():
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002


def test_a_trial_changes_nothing_and_runs_start_alike():
    module, data = ToyModule(), loader()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    before = random_states(), data.sampler.generator.get_state().tolist()
    trial = Trial(module, data, {"accelerator": "cpu"})
    runs = [Losses(9), Losses(9)]
    trained = [trial.run(each) for each in runs]
    assert runs[0].losses == runs[1].losses
    assert len(set(runs[0].losses)) > 5
    assert difference(trained[0].state_dict(), trained[1].state_dict()) == 0
    assert difference(trained[0].state_dict(), weights) > 0
    assert difference(module.state_dict(), weights) == 0
    assert before == (random_states(), data.sampler.generator.get_state().tolist())
    assert module._trainer is None


def test_random_states_are_as_before_also_after_an_error():
    class Raises(ToyModule):
        def training_step(self, batch, batch_idx):
            torch.rand(1), np.random.random(), random.random()  # noqa: NPY002
            raise RuntimeError("of the user")

    trial = Trial(Raises(), loader(), {"accelerator": "cpu"})
    before = random_states()
    with pytest.raises(RuntimeError, match="of the user"):
        trial.run(Losses(9))
    assert random_states() == before


@pytest.mark.parametrize("length", [{"max_epochs": 2}, {"max_steps": 8}])
def test_schedules_stand_still_and_the_planned_length_does_not_end_a_trial(length):
    losses = Losses(12)
    Trial(WithSchedule(), toy_loaders()[0], {**length, "accelerator": "cpu"}).run(losses)
    assert losses.rates == [0.05] * 12


def test_prepare_changes_the_copies():
    module = ToyModule()

    def prepare(copied, data):
        copied.net[4].p = 0.0
        return toy_loaders(16)[0]

    losses = Losses(3)
    copied = Trial(module, toy_loaders()[0], {"accelerator": "cpu"}).run(losses, prepare)
    assert (copied.net[4].p, module.net[4].p) == (0.0, 0.5)


def test_an_optimizer_of_lightning_cli_trains_the_copy(monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    L.seed_everything(0, verbose=False)
    given = ["--optimizer=SGD", "--optimizer.lr=0.1"]
    options = {"run": False, "save_config_callback": None, "seed_everything_default": False}
    cli = LightningCLI(NoOptimizer, args=given, trainer_defaults={"logger": False}, **options)
    module, losses = cli.model, Losses(20)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    twin = Trial(module, toy_loaders()[0]).run(losses)
    assert difference(module.state_dict(), before) == 0
    assert difference(twin.state_dict(), before) > 0.01
    assert losses.losses[-1] < losses.losses[0]
    assert module.configure_optimizers().param_groups[0]["params"][0] is next(module.parameters())


def test_a_copy_of_data_shares_tensors_but_not_generators():
    data = loader()
    copied = copy_data(data)
    assert copied.dataset.tensors[0] is data.dataset.tensors[0]
    assert copied.sampler.generator is not data.sampler.generator


def test_files_of_the_modules_hooks_stay_out_of_the_users_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Writes(ToyModule):
        def on_train_start(self):
            for folder in (self.logger.log_dir, self.trainer.log_dir, self.trainer.default_root_dir):
                Path(folder, "written").touch()

        def on_train_end(self):
            Path("export").touch()

    Trial(Writes(), loader(), {"accelerator": "cpu"}).run(Losses(2))
    assert list(tmp_path.iterdir()) == []


def test_functions_that_hold_the_module_are_refused_and_others_are_not():
    module = ToyModule()
    module.scale = lambda x: 2 * x
    module.net.register_forward_hook(lambda layer, args, output: output.clamp(-9, 9))
    copy_module(module)
    seen = module.seen = []
    hook = module.net.register_forward_hook(lambda layer, args, output: seen.append(output))
    with pytest.raises(TypeError, match="holds a part of it: a hook of net"):
        copy_module(module)
    hook.remove()
    module.loss = lambda x: module(x)
    with pytest.raises(TypeError, match="holds a part of it: `loss` of the module"):
        copy_module(module)


@pytest.mark.parametrize(
    ("data", "got"),
    [(L.LightningDataModule, "the class LightningDataModule"), (toy_data(), "TensorDataset"), ("digits", "str")],
)
def test_data_that_is_no_loader(data, got):
    with pytest.raises(TypeError, match=f"a train loader, got {got}. Give an object"):
        copy_data(data)


@pytest.mark.parametrize("options", [{"callbacks": []}, {"logger": True}])
def test_options_without_a_place(options):
    with pytest.raises(ValueError, match=f"`trainer_options` must not hold {next(iter(options))}"):
        Trial(ToyModule(), None, options)


def test_processes_from_which_no_result_comes_back():
    options = {"strategy": "ddp_spawn", "devices": 2, "accelerator": "cpu"}
    with pytest.raises(ValueError, match="`strategy` must keep a trial in this process"):
        Trial(ToyModule(), toy_loaders()[0], options).run(Losses(1))


def test_what_cannot_be_copied_is_named():
    module = ToyModule()
    module.lock = threading.Lock()
    with pytest.raises(TypeError, match="`module` must be copyable for a trial, got ToyModule: cannot pickle"):
        Trial(module, toy_loaders()[0]).run(Losses(1))
    with pytest.raises(TypeError, match="A stream cannot be read twice"):
        Trial(ToyModule(), (batch for batch in toy_loaders()[0])).run(Losses(1))
    with pytest.raises(TypeError, match="`module` must be a LightningModule, got Linear"):
        Trial(torch.nn.Linear(1, 1), None).run(Losses(1))
