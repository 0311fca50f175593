import pickle
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.searches.search_settings import fixed_values
from lightning_trainingkit.tuning.trials.source import make_source
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError
from tests.toy import ToyModule, toy_data, toy_loaders


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return toy_loaders(self.hparams.batch_size)[0]


class NoTrainSet(L.LightningDataModule):
    def val_dataloader(self):
        return toy_loaders()[1]


class Wide(ToyModule):
    def __init__(self, width: int, depth: int = 1, **options):
        super().__init__(**options)
        self.width, self.depth = width, depth


class Open(L.LightningModule):
    """What its ``options`` hold is not in its signature."""

    def __init__(self, lr: float = 0.1, **options):
        super().__init__()
        self.save_hyperparameters()
        self.options = options


class Partly(L.LightningModule):
    """It saves one argument, and keeps another one under its name."""

    def __init__(self, lr: float = 0.1, width: int = 4, loss: str = "mean"):
        super().__init__()
        self.save_hyperparameters("lr")
        self.width = width
        self.loss = loss


class Silent(L.LightningModule):
    def __init__(self, width: int):
        super().__init__()


@dataclass
class Config:
    width: int


class WithNetwork(L.LightningModule):
    def __init__(self, net=None, loss=torch.relu, lr: float = 0.1, save: bool = True):
        super().__init__()
        with warnings.catch_warnings(action="ignore"):  # Lightning's, on networks
            self.save_hyperparameters(ignore=[] if save else ["net"])
        self.net = net


class Plain(Data):
    """It saves nothing."""

    def __init__(self, batch_size: int = 8):
        L.LightningDataModule.__init__(self)
        self.batch_size = batch_size


class WithLoader(ToyModule):
    def train_dataloader(self):
        return toy_loaders()[0]


def build(width: int, lr: float = 0.1):
    return Wide(width, lr=lr), Data(4)


def again(source):
    """The source as another process gets it."""
    return pickle.loads(pickle.dumps(source))


def test_a_class_and_its_data_are_built_from_names():
    source = again(make_source(Wide, Data))
    assert source.names == ("width", "depth", "lr", "data.batch_size")
    assert source.given == {"depth": 1, "lr": 0.1, "data.batch_size": 8}
    assert source.describe == "Wide on Data"
    module, data = source({"width": 3, "lr": 0.5, "data.batch_size": 2})
    assert (module.width, module.depth, module.hparams.lr, data.hparams.batch_size) == (3, 1, 0.5, 2)


def test_an_object_is_built_again_from_its_saved_hyperparameters():
    source = again(make_source(ToyModule(lr=0.3), Data(4)))
    assert source.given == {"lr": 0.3, "data.batch_size": 4}
    module, data = source({})
    assert (module.hparams.lr, data.hparams.batch_size) == (0.3, 4)
    assert source({"lr": 0.7})[0].hparams.lr == 0.7


def test_further_arguments_of_an_object_are_kept_and_may_be_searched():
    source = again(make_source(Open(0.3, width=64), Data(4)))
    assert source.names == ("lr", "width", "data.batch_size")
    assert (source({})[0].options, source({"width": 8})[0].options) == ({"width": 64}, {"width": 8})


def test_an_argument_that_is_not_saved_must_have_its_default():
    assert make_source(Partly(0.3), Data(4)).given["lr"] == 0.3
    with pytest.raises(ValueError, match="must have saved its hyperparameters, got Partly without width"):
        make_source(Partly(0.3, width=64), Data(4))


def test_a_function_gets_its_hyperparameters_by_name():
    source = again(make_source(build))
    assert (source.names, source.given) == (("width", "lr"), {"lr": 0.1})
    module, data = source({"width": 5})
    assert (module.width, data.hparams.batch_size) == (5, 4)


def test_the_random_state_stays():
    module = ToyModule()
    before = torch.get_rng_state()
    make_source(module, Data)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("module", "data", "kind", "said"),
    [
        (ToyModule, NoTrainSet, WrongSetupError, "must have a train set, got NoTrainSet without `train_dataloader`"),
        (ToyModule(), NoTrainSet(), WrongSetupError, "must have a train set"),
        (ToyModule, None, ValueError, "must be given where the module has no `train_dataloader`"),
        (ToyModule, DataLoader(toy_data()), TypeError, "must be a LightningDataModule, got DataLoader"),
        (ToyModule, dict, TypeError, "must be a LightningDataModule"),
        (3, Data, TypeError, "must be a LightningModule of lightning.pytorch, its class or a function, got int"),
        (Silent(3), Data, ValueError, "must have saved its hyperparameters, got Silent without width"),
        (lambda lr: ToyModule(lr), None, TypeError, "must be picklable"),
        (
            WithNetwork(nn.Linear(2, 2)),
            Data,
            ValueError,
            "networks itself, got WithNetwork with a Linear as",
        ),
        (WithNetwork(nn.Linear(2, 2), save=False), Data, ValueError, "got WithNetwork with a Linear as `net`"),
        (partial(WithNetwork, nn.Linear(2, 2)), Data, ValueError, "Write a function at the top of a file"),
    ],
)
def test_what_is_no_source(module, data, kind, said):
    with pytest.raises(kind) as error:
        make_source(module, data)
    assert said in str(error.value)


def test_a_frozen_network_and_a_loss_may_be_arguments():
    teacher = nn.Linear(2, 2).requires_grad_(False)
    module, _ = again(make_source(WithNetwork(teacher, nn.CrossEntropyLoss()), Data))({"lr": 0.2})
    assert torch.equal(module.net.weight, teacher.weight)


def test_arguments_that_are_objects_tell_two_searches_apart():
    losses = [torch.relu, torch.tanh, nn.MSELoss(), nn.MSELoss(reduction="sum"), Path("a"), Path("b"), torch.float16]
    modules = [WithNetwork(loss=loss) for loss in [*losses, torch.float32, Config(8), Config(9)]]
    seen = [fixed_values(make_source(module, Plain(size))) for module in modules for size in (8, 4)]
    assert len({str(each) for each in seen}) == 20
    assert seen[1] == fixed_values(make_source(modules[0], Plain(4)))
    assert seen[1]["data.batch_size"] == 4


def test_a_class_that_no_other_process_finds(monkeypatch):
    class Local(ToyModule):
        pass

    with pytest.raises(TypeError, match="Write classes and functions at the top of a file"):
        make_source(Local, Data)
    monkeypatch.setattr(Wide, "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(TypeError, match="got Wide of a notebook or of a prompt"):
        make_source(Wide, Data)


def test_a_module_with_a_loader_of_its_own_needs_no_data():
    module, data = again(make_source(WithLoader))({})
    assert (type(module), data) == (WithLoader, None)


def test_a_function_that_returns_something_else():
    with pytest.raises(TypeError, match=r"must be a LightningModule of .*, got int"):
        make_source(number)({})
    with pytest.raises(TypeError, match="must come from one place"):
        make_source(build, Data)({"width": 1})
    with pytest.raises(WrongSetupError, match="must have a train set"):
        make_source(without_train_set)({})


def number():
    return 3


def without_train_set():
    return ToyModule(), NoTrainSet()
