"""What all callbacks that change a finished model share: bad modules, resume, evaluation, averages."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from lightning_trainingkit import (
    DropConnect,
    DropoutOverride,
    FractionalMaxPool,
    MonteCarloDropout,
    ReplaceActivation,
    StochasticDepth,
    WeightPenalty,
)
from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.command_center.settings import settings_of
from lightning_trainingkit.nn.structure.randomness import layers_that_draw, noise_on
from tests.toy import ResidualModule, toy_loaders, toy_trainer

NOISES = {
    "DropoutOverride": lambda **options: DropoutOverride(0.4, verbose=False, **options),
    "DropConnect": lambda **options: DropConnect({"*": 0.4}, verbose=False, **options),
    "StochasticDepth": lambda **options: StochasticDepth(0.6, verbose=False, **options),
    "StochasticDepth of batches": lambda **options: StochasticDepth(0.6, mode="batch", verbose=False, **options),
    "FractionalMaxPool": lambda: FractionalMaxPool(verbose=False),
}


class Module(ResidualModule):
    """A net with places for each noise. Its own dropout is off."""

    def __init__(self):
        super().__init__()
        self.net.insert(6, nn.Dropout(0.0))


def fit(module, *callbacks, **options):
    toy_trainer(*callbacks, **{"max_epochs": 1, "limit_train_batches": 2, **options}).fit(module, *toy_loaders())


def assert_plain(module):
    assert not [name for name, each in module.named_modules() if noise_on(each) or "forward" in vars(each)]


def tied(module):
    module.net[4].conv.weight = module.net[2].conv.weight
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("noise", [*NOISES, "ReplaceActivation"])
@pytest.mark.parametrize("wrap", [torch.jit.script, nn.DataParallel])
def test_torchscript_and_data_parallel_are_refused(noise, wrap):
    module = Module()
    module.net = wrap(module.net)
    callback = ReplaceActivation("silu", verbose=False) if noise == "ReplaceActivation" else NOISES[noise]()
    with pytest.raises((TypeError, ValueError), match=r"TorchScript|DataParallel"):
        fit(module, callback)


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_a_quantised_head_is_no_head():
    module = Module()
    module.net = torch.ao.quantization.quantize_dynamic(module.net, {nn.Linear})
    with pytest.raises(TypeError, match=r"`head` must be .* in floating point, got net\.7, which is quantised"):
        fit(module, DropConnect({"head": 0.5}))
    with pytest.raises(TypeError, match=r"`net\.7` must be in floating point"):
        fit(module, DropoutOverride({"net.7": 0.5}))


@pytest.mark.parametrize("callback", [StochasticDepth(mode="batch"), WeightPenalty(1e-3)])
def test_sharded_modules_are_refused(callback):
    trainer = toy_trainer(callback)
    trainer._accelerator_connector.strategy = FSDPStrategy()
    with pytest.raises(ValueError, match=r"got (FSDPStrategy|'batch')"):
        callback.setup(trainer, Module(), "fit")


@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode")
@pytest.mark.parametrize("noise", NOISES)
def test_layers_in_eval_mode_are_refused_unless_they_are_frozen(noise):
    module = Module()
    module.net.eval()
    with pytest.raises(ValueError, match=r"must be in training mode .* got eval mode in the first batch"):
        fit(module, NOISES[noise]())
    assert_plain(module)
    if noise in ("DropConnect", "StochasticDepth"):
        module.net.requires_grad_(False)
        module.net[7].train().requires_grad_(True)
        fit(module, NOISES[noise]())


def test_noise_goes_onto_replaced_layers_and_no_swap_onto_noise():
    swap, noise = ReplaceActivation("silu", verbose=False), StochasticDepth(0.6, verbose=False)
    module = Module()
    fit(module, swap, noise)
    assert [row.layer for row in noise.report] == ["net.2.relu", "net.4.relu"]
    assert isinstance(module.net[2].relu, nn.SiLU)
    with pytest.raises(ValueError, match=r"one that StochasticDepth has changed.* replace layers first"):
        fit(Module(), noise, swap)


def test_weights_that_are_shared_or_computed_get_no_new_values_for_selu():
    with pytest.raises(ValueError, match=r"weights that are shared as net.4.conv.weight"):
        fit(tied(Module()), ReplaceActivation("selu", init=True))
    module = Module()
    nn.utils.prune.l1_unstructured(module.net[2].conv, "weight", 0.5)
    with pytest.raises(ValueError, match=r"`net\.2\.conv` must have no hooks"):
        fit(module, ReplaceActivation("selu", init=True))


@pytest.mark.parametrize("callback", [StochasticDepth, FractionalMaxPool])
def test_an_empty_list_of_patterns(callback):
    with pytest.raises(TypeError, match="`layers` must be a name pattern or a list of them"):
        callback(layers=[])


@pytest.mark.parametrize("to", ["maxout(nan)", "maxout(inf)", "prelu(nan)"])
def test_activations_with_numbers_that_are_not_finite(to):
    with pytest.raises(ValueError, match="`to` must"):
        ReplaceActivation(to)


def test_lazy_layers():
    module = Module()
    module.net[-1] = nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"`net\.7` must know its shapes for DropConnect, got a lazy layer"):
        fit(module, DropConnect({"*": 0.4}, verbose=False))
    fit(module, ReplaceActivation("silu", verbose=False))
    assert isinstance(module.net[2].relu, nn.SiLU)


def test_a_copy_for_an_average_of_the_last_epochs_comes_after_a_rebuild():
    with pytest.raises(ValueError, match="before callbacks that average weights"):
        fit(Module(), StochasticWeightAveraging(0.1), ReplaceActivation("maxout", verbose=False))


class Copies(L.Callback):
    """Copies and pickles the module in the middle of the training."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        x = torch.randn(4, 1, 4, 4)
        for each in (copy.deepcopy(pl_module.net), pickle.loads(pickle.dumps(pl_module)).net):
            with torch.random.fork_rng():
                torch.manual_seed(5)
                mine = pl_module.net(x)
                torch.manual_seed(5)
                assert torch.equal(each(x), mine)


@pytest.mark.parametrize("noise", [*NOISES, "ReplaceActivation"])
def test_a_module_in_training_can_be_copied_and_pickled(noise):
    callback = ReplaceActivation("silu", verbose=False) if noise == "ReplaceActivation" else NOISES[noise]()
    fit(Module(), callback, Copies())


class Draws(L.Callback):
    """Keeps the rates and the skipped branches of each batch."""

    def __init__(self, noise):
        self.noise, self.seen = noise, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        numbers = [getattr(noise_on(each), "number", None) for each in pl_module.modules() if noise_on(each)]
        self.seen[trainer.current_epoch, batch_idx] = dict(self.noise.present_rates), numbers


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:You're resuming from a checkpoint")
@pytest.mark.parametrize("noise", ["DropConnect", "StochasticDepth of batches"])
def test_a_run_killed_in_mid_epoch_resumes_with_the_rates_and_the_branches_of_an_unbroken_one(noise, tmp_path):
    seen = []
    for path, seed in ((None, 1), (tmp_path / "epoch=1-step=6.ckpt", 2)):
        torch.manual_seed(seed)
        draws = Draws(NOISES[noise](schedule="rise", until=0.8))
        saved = [ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)] if path is None else []
        trainer = toy_trainer(draws.noise, draws, *saved, max_epochs=3)
        trainer.fit(Module(), *toy_loaders(), ckpt_path=path)
        seen.append(draws.seen)
    whole, resumed = seen
    assert list(resumed) == [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert resumed == {place: whole[place] for place in resumed}


@pytest.mark.parametrize("noise", [name for name in NOISES if name != "FractionalMaxPool"])
def test_arguments_stand_in_the_config_of_a_run_and_rates_are_logged(noise):
    callback = NOISES[noise](schedule="fall")
    name = type(callback).__name__
    trainer = toy_trainer(callback, max_epochs=1)
    trainer.fit(Module(), *toy_loaders())
    assert settings_of(trainer)["callbacks"][name]["schedule"] == "fall"
    full = {"DropoutOverride": 0.4, "DropConnect": 0.4}.get(noise, 0.6)
    assert trainer.logged_metrics[f"noise/{name}"].item() == pytest.approx(full / 4)  # in the last of four batches


def test_evaluation_alone_has_no_noise_and_monte_carlo_dropout_averages_over_all_of_them():
    module, loader = Module(), toy_loaders()[1]

    class Marked(L.Callback):
        def on_test_batch_start(self, trainer, pl_module, *_):
            self.kinds = {type(each) for each in layers_that_draw(pl_module.modules())}

    def test(*callbacks):
        return toy_trainer(*callbacks).test(module, loader, verbose=False)[0]["test/loss"]

    plain, marked = test(), Marked()
    noises = [NOISES[name]() for name in NOISES if name != "StochasticDepth of batches"]
    assert test(*noises, marked) == plain
    assert marked.kinds == {nn.Dropout, nn.Conv2d, nn.Linear, nn.ReLU, nn.MaxPool2d}
    for name in NOISES:
        assert test(NOISES[name](), MonteCarloDropout(passes=2)) != plain, name
    assert test(*noises, MonteCarloDropout(passes=2)) != plain
    assert test() == plain
    assert_plain(module)


def test_averages_and_checkpoints_have_the_keys_of_the_plain_model(tmp_path):
    module = Module()
    noises = [NOISES[name]() for name in NOISES if name != "StochasticDepth of batches"]
    fit(module, *noises, EMAWeightAveraging(decay=0.9), ModelCheckpoint(tmp_path, "last"))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert list(saved["state_dict"]) == list(module.state_dict()) == list(Module().state_dict())
    assert_plain(module)
