import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

from lightning_trainingkit import BestCheckpoint, DropoutOverride, EnsembleAverage, ReplaceActivation, load_best
from lightning_trainingkit.nn import replace_activation
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer


class Late(ToyModule):
    """Makes its layers in `configure_model`."""

    def __init__(self):
        super().__init__()
        self.made, self.net = self.net, None

    def configure_model(self):
        self.net = self.made


def saved(folder, *callbacks):
    """Train for an epoch, and return the module and its checkpoint."""
    torch.manual_seed(0)
    module = ToyModule()
    save = ModelCheckpoint(folder, save_top_k=-1)
    toy_trainer(*callbacks, save, max_epochs=1).fit(module, *toy_loaders())
    return module, save.best_model_path


def test_it_prints_the_changes_and_the_new_activations_stay_after_the_fit(capsys):
    module = Late()
    toy_trainer(swap := ReplaceActivation("silu"), max_epochs=1).fit(module, *toy_loaders())
    assert isinstance(module.net[2], nn.SiLU)
    assert [(row.layer, row.before, row.after) for row in swap.report] == [("net.2", "ReLU()", "SiLU()")]
    printed = capsys.readouterr().out
    assert "SiLU()" in printed
    assert "The keys of the state dict stay." in printed


def test_it_trains_what_a_model_with_these_activations_trains():
    torch.manual_seed(0)
    one, other = ToyModule(), ToyModule()
    other.load_state_dict(one.state_dict())
    other.net[2] = nn.Tanh()
    for module, callbacks in ((one, [ReplaceActivation("tanh", verbose=False)]), (other, [])):
        L.seed_everything(1, verbose=False)
        toy_trainer(*callbacks).fit(module, *toy_loaders())
    assert difference(one.state_dict(), other.state_dict()) == 0


def test_maxout_says_how_many_parameters_it_adds(capsys):
    module = ToyModule()
    toy_trainer(ReplaceActivation("maxout"), max_epochs=1).fit(module, *toy_loaders())
    printed = capsys.readouterr().out
    assert "Parameters: +48." in printed
    assert "Keys of another shape: net.0.weight, net.0.bias, net.1.weight" in printed
    assert module.net[0].weight.shape == (8, 1, 3, 3)


def test_it_says_what_stays_where_nothing_changes(capsys):
    module = ToyModule()
    module.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Sigmoid())
    toy_trainer(ReplaceActivation("relu"), max_epochs=1).fit(module, *toy_loaders())
    printed = capsys.readouterr().out
    assert "ReplaceActivation: no changes." in printed
    assert "net.2 (Sigmoid) stays: it is a gate or an output." in printed


def test_a_second_stage_of_the_same_module_changes_nothing_more():
    module, callback = ToyModule(), ReplaceActivation({"net.2": "maxout"}, verbose=False)
    toy_trainer(callback, max_epochs=1).fit(module, *toy_loaders())
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    toy_trainer(callback).test(module, toy_loaders()[1], verbose=False)
    assert difference(weights, module.state_dict()) == 0
    with pytest.raises(ValueError, match="another surgery"):
        toy_trainer(ReplaceActivation("gelu", verbose=False)).fit(module, *toy_loaders())


def test_undo_before_any_step_restores_and_after_it_is_refused():
    module, callback = ToyModule(), ReplaceActivation("maxout", verbose=False)
    toy_trainer(callback, max_epochs=1).fit(module, *toy_loaders())
    with pytest.raises(ValueError, match="`undo` must be called before"):
        callback.undo()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("to", ["silu", "maxout", "prelu"])
def test_checkpoints_of_trainings_with_and_without_it_are_told_apart(to, tmp_path):
    swap = {"with": [ReplaceActivation(to, verbose=False)], "without": []}
    _, plain = saved(tmp_path / "without")
    _, swapped = saved(tmp_path / "with", *swap["with"])
    with pytest.raises(ValueError, match=r"got one without\. Leave the callback out"):
        toy_trainer(*swap["with"], max_epochs=2).fit(ToyModule(), *toy_loaders(), ckpt_path=plain)
    fresh = ToyModule()
    toy_trainer(ReplaceActivation(to, verbose=False)).test(fresh, toy_loaders()[1], ckpt_path=swapped, verbose=False)
    assert type(fresh.net[2]).__name__.lower() == to
    with pytest.raises(ValueError, match="Give the arguments of that training"):
        toy_trainer(ReplaceActivation("elu", verbose=False)).test(ToyModule(), toy_loaders()[1], ckpt_path=swapped)


def test_the_best_weights_of_replaced_activations_are_not_loaded_into_the_old_model(tmp_path):
    torch.manual_seed(0)
    best = BestCheckpoint("val/loss", "min", dirpath=str(tmp_path))
    toy_trainer(ReplaceActivation("silu", verbose=False), best, max_epochs=1).fit(ToyModule(), *toy_loaders())
    with pytest.raises(ValueError, match=r"ReplaceActivation had made `net\.2` SiLU.*got ReLU"):
        load_best(ToyModule(), tmp_path)
    module = ToyModule()
    replace_activation(module, "silu")
    load_best(module, tmp_path)


def test_ensemble_members_with_replaced_activations_are_no_members_of_the_old_model(tmp_path):
    _, path = saved(tmp_path, ReplaceActivation("silu", verbose=False))
    average = EnsembleAverage(path)
    with pytest.raises(ValueError, match=r"where ReplaceActivation had made `net\.2` SiLU\(\), got ReLU"):
        toy_trainer(average).test(ToyModule(), toy_loaders()[1])
    swap = ReplaceActivation("silu", verbose=False)
    toy_trainer(swap, average).test(ToyModule(), toy_loaders()[1], verbose=False)


@pytest.mark.parametrize("to", ["silu", "maxout"])
def test_a_fit_that_fails_before_its_first_step_leaves_the_old_layers(to):
    class Fails(ToyModule):
        def training_step(self, batch, batch_idx):
            raise ArithmeticError

    module = Fails()
    before, layers = {name: value.clone() for name, value in module.state_dict().items()}, list(module.modules())
    with pytest.raises(ArithmeticError):
        toy_trainer(ReplaceActivation(to, verbose=False), num_sanity_val_steps=0).fit(module, *toy_loaders())
    assert list(module.modules()) == layers
    assert difference(before, module.state_dict()) == 0


def test_selu_draws_new_weights_in_a_fit_alone_and_not_over_trained_ones():
    module = ToyModule()
    before = module.net[0].weight.clone()
    callback = ReplaceActivation("selu", init=True, verbose=False)
    toy_trainer(callback).validate(module, toy_loaders()[1], verbose=False)
    assert torch.equal(module.net[0].weight, before)
    toy_trainer(DropoutOverride(0.1, verbose=False), max_epochs=1).fit(module, *toy_loaders())
    with pytest.raises(ValueError, match="`init` must be False where layers are trained"):
        toy_trainer(callback).fit(module, *toy_loaders())


def test_an_average_of_weights_comes_after_a_rebuild():
    module, average, swap = ToyModule(), EMAWeightAveraging(), ReplaceActivation("maxout", verbose=False)
    with pytest.raises(ValueError, match="before callbacks that average weights"):
        toy_trainer(average, swap).fit(module, *toy_loaders())
    assert isinstance(module.net[2], nn.ReLU)
    toy_trainer(swap, average, max_epochs=1).fit(module, *toy_loaders())


@pytest.mark.parametrize("to", [3, {"*": 3}, {}, "gellu", "glu"])
def test_bad_arguments(to):
    with pytest.raises((TypeError, ValueError), match="`to` must"):
        ReplaceActivation(to)
