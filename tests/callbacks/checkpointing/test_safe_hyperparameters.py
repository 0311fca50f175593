"""Hyperparameters that would load by running code: the training runs, and the files load without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_trainingkit import BestCheckpoint, DigitsDataModule, EnsembleAverage, SnapshotCheckpoint
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Attribute 'model' is an instance of `nn.Module`")  # Lightning's advice


class Careless(ToyModule):
    def __init__(self, model, **others):
        super().__init__()
        self.save_hyperparameters({"lr": 0.1, "sizes": [1, 2], "model": model, **others})


def best(folder):
    return BestCheckpoint("val/loss", "min", dirpath=str(folder))


def snapshot(folder):
    return SnapshotCheckpoint(1, dirpath=str(folder))


def saved(folder, callback, module, *others):
    toy_trainer(callback, *others, max_epochs=1, enable_checkpointing=True).fit(module, *toy_loaders())
    (path,) = folder.glob("*.ckpt")
    return path, torch.load(path, weights_only=True)


@pytest.mark.parametrize("make", [best, snapshot])
def test_a_module_is_left_out_and_named(tmp_path, make, caplog):
    module = Careless(nn.Linear(1, 1))
    with caplog.at_level("INFO"):
        path, content = saved(tmp_path, make(tmp_path), module)
    assert content["hyper_parameters"] == {"lr": 0.1, "sizes": [1, 2]}
    assert content["hyper_parameters_left_out"] == {"Careless": ["model"]}
    assert "of Careless, since loading them would run code: model." in caplog.text
    found = Careless.load_from_checkpoint(path, model=module.hparams.model, weights_only=True)
    assert difference(found.state_dict(), module.state_dict()) == 0
    with pytest.raises(TypeError, match="'model'"):
        Careless.load_from_checkpoint(path)


@pytest.mark.parametrize("value", [Path("x"), np.float64(0.5), [nn.ReLU()], {"net": nn.ReLU}])
def test_any_object_that_needs_code_is_left_out(tmp_path, value):
    _, content = saved(tmp_path, best(tmp_path), Careless(3, value=value))
    assert content["hyper_parameters"] == {"lr": 0.1, "sizes": [1, 2], "model": 3}
    assert content["hyper_parameters_left_out"] == {"Careless": ["value"]}


def test_hyperparameters_of_a_datamodule_are_left_out_too(tmp_path):
    data = DigitsDataModule(batch_size=900)
    data.save_hyperparameters({"folder": Path("x")})
    module = ToyModule()
    module.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    toy_trainer(best(tmp_path), max_epochs=1).fit(module, datamodule=data)
    (path,) = tmp_path.glob("*.ckpt")
    content = torch.load(path, weights_only=True)
    assert content["datamodule_hyper_parameters"]["batch_size"] == 900
    assert content["hyper_parameters_left_out"] == {"DigitsDataModule": ["folder"]}


def test_nothing_is_said_of_plain_values(tmp_path, caplog):
    with caplog.at_level("INFO"):
        _, content = saved(tmp_path, best(tmp_path), Careless(3))
    assert content["hyper_parameters"] == {"lr": 0.1, "sizes": [1, 2], "model": 3}
    assert "hyper_parameters_left_out" not in content
    assert "leave out" not in caplog.text


def test_the_hooks_of_the_module_and_the_files_of_others_stay(tmp_path):
    class Saving(Careless):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["mine"] = 7

    module = Saving(nn.Linear(1, 1))
    other = ModelCheckpoint(tmp_path / "other")
    _, content = saved(tmp_path, best(tmp_path), module, other)
    assert content["mine"] == 7
    assert "on_save_checkpoint" not in vars(module)
    (path,) = (tmp_path / "other").glob("*.ckpt")
    assert isinstance(torch.load(path, weights_only=False)["hyper_parameters"]["model"], nn.Linear)


def test_a_config_of_omegaconf_becomes_a_dict(tmp_path):
    config = pytest.importorskip("omegaconf").OmegaConf.create({"lr": 0.1, "net": {"width": 3}})
    module = ToyModule()
    module._set_hparams(config)
    _, content = saved(tmp_path, best(tmp_path), module)
    assert content["hyper_parameters"]["lr"] == 0.1
    assert content["hyper_parameters_left_out"] == {"ToyModule": ["net"]}


class Activated(ToyModule):
    def __init__(self, width=4, act=nn.ReLU):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, width), act(), nn.Linear(width, 2))


def test_a_left_out_argument_with_a_default_is_no_default(tmp_path):
    module = Activated(act=nn.Tanh)
    path, content = saved(tmp_path, best(tmp_path), module)
    assert content["hyper_parameters"]["width"] == 4
    with pytest.raises(TypeError, match="'str' object is not callable"):
        Activated.load_from_checkpoint(path)
    found = Activated.load_from_checkpoint(path, act=nn.Tanh)
    assert difference(found.state_dict(), module.state_dict()) == 0


def test_members_take_what_was_left_out_from_the_tested_module(tmp_path):
    module = Activated(act=nn.Tanh)
    path, _ = saved(tmp_path, best(tmp_path), module)
    module.eval()
    tested = Activated(act=nn.Tanh)
    found = torch.cat(toy_trainer(EnsembleAverage([str(path)])).predict(tested, toy_loaders()[1]))
    expected = torch.cat([module(x).softmax(1) for x, _ in toy_loaders()[1]])
    torch.testing.assert_close(found.softmax(1), expected)
    with pytest.raises(ValueError, match="lacks hyperparameters that would load by running code \\(act\\)"):
        toy_trainer(EnsembleAverage([str(path)])).predict(Activated(5, nn.Tanh), toy_loaders()[1])
