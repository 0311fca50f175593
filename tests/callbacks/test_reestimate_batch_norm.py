import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_trainingkit import BestCheckpoint, EarlyStopping
from lightning_trainingkit.callbacks.reestimate_batch_norm import ReestimateBatchNorm
from tests.toy import ScriptedModule, ToyModule, difference, toy_data, toy_loaders, toy_trainer


def fit(*callbacks, module=None, data=None, **options):
    L.seed_everything(0, verbose=False)
    module = module or ToyModule()
    trainer = toy_trainer(*callbacks, **options)
    train, val = toy_loaders()
    trainer.fit(module, train if data is None else data, None if isinstance(data, L.LightningDataModule) else val)
    return module, trainer


def population(module, x=None):
    """What the BatchNorm of the toy sees, of all images at once."""
    seen = module.net[0](toy_data().tensors[0] if x is None else x).detach().transpose(0, 1).flatten(1)
    return seen.mean(1), seen.var(1)


def has_its_statistics(module, x=None):
    norm = module.net[1]
    found = (norm.running_mean, norm.running_var)
    return all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, population(module, x), strict=True))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "average",
    [
        lambda: EMAWeightAveraging(decay=0.9),
        lambda: EMAWeightAveraging(decay=0.9, use_buffers=False),
        WeightAveraging,
        lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1),
    ],
)
def test_averaged_weights_get_the_statistics_of_the_training_data(order, average):
    without, _ = fit(average(), max_epochs=3)
    module, _ = fit(*[average(), ReestimateBatchNorm()][::order], max_epochs=3)
    assert has_its_statistics(module)
    weights, weights_too = (dict(each.named_parameters()) for each in (without, module))
    assert difference(weights, weights_too) == 0
    if not isinstance(average(), StochasticWeightAveraging):  # which does so itself, but for the spread between batches
        assert not has_its_statistics(without)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("restore", [BestCheckpoint, EarlyStopping])
def test_it_comes_after_the_best_weights_have_come_back(order, restore, tmp_path):
    options = {"restore": True} if restore is BestCheckpoint else {"restore_best": True}
    callbacks = [restore("val/loss", mode="min", **options), EMAWeightAveraging(decay=0.5), ReestimateBatchNorm()]
    module, trainer = fit(
        *callbacks[::order], module=ScriptedModule([3, 1, 2, 4]), max_epochs=4, default_root_dir=tmp_path
    )
    assert torch.equal(module.net[0].weight, module.seen[1]["net.0.weight"])
    assert has_its_statistics(module)
    assert trainer.callbacks[-1] is callbacks[2]


def test_nothing_else_changes_and_the_random_numbers_neither():
    states = []
    for callbacks in ([], [ReestimateBatchNorm()]):
        module, _ = fit(*callbacks)
        state = dict(module.named_parameters())
        states.append((state, [each.training for each in module.modules()], torch.get_rng_state()))
    (one, modes, random), (other, modes_too, random_too) = states
    assert difference(one, other) == 0
    assert modes == modes_too
    assert torch.equal(random, random_too)


def test_only_so_many_batches():
    x = toy_data().tensors[0]
    module, _ = fit(ReestimateBatchNorm(1), data=DataLoader(toy_data(), 8))
    assert has_its_statistics(module, x[:8])
    module, _ = fit(ReestimateBatchNorm(), data=DataLoader(toy_data(), 8), limit_train_batches=3)
    assert has_its_statistics(module, x[:24])
    assert module.net[1].num_batches_tracked == 3
    module, _ = fit(ReestimateBatchNorm(99), data=DataLoader(toy_data(), 5))
    assert has_its_statistics(module)
    assert module.net[1].num_batches_tracked == 7


def test_equal_weights_get_equal_statistics_whatever_was_drawn_before():
    class Deep(ToyModule):
        """Its second BatchNorm sees what depends on the batches."""

        def __init__(self):
            super().__init__(lr=0.0)
            self.net.append(nn.BatchNorm1d(2))

    start, ends = Deep(), []
    for seed in range(2):
        module = copy.deepcopy(start)
        torch.manual_seed(seed)
        toy_trainer(ReestimateBatchNorm(2)).fit(module, *toy_loaders())
        ends.append(module.state_dict())
    assert difference(*ends) == 0


class Hooked(ToyModule):
    """Has dict batches, which its hooks make to pairs, scaled in training."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return (batch["x"], batch["y"])

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return (batch[0] * (3 if self.trainer.training else 1), batch[1])


class HookedData(L.LightningDataModule):
    """Does the same for a module without."""

    def train_dataloader(self):
        return dict_loader()

    def val_dataloader(self):
        return dict_loader()

    on_before_batch_transfer = Hooked.on_before_batch_transfer
    on_after_batch_transfer = Hooked.on_after_batch_transfer


def dict_loader():
    x, y = toy_data().tensors
    return DataLoader([{"x": x[i], "y": y[i]} for i in range(len(x))], 8)


@pytest.mark.parametrize("where", ["module", "datamodule"])
def test_batches_pass_through_the_hooks_of_training(where):
    if where == "module":
        module, _ = fit(ReestimateBatchNorm(), module=Hooked(), data=dict_loader(), limit_val_batches=0)
    else:
        module, _ = fit(ReestimateBatchNorm(), data=HookedData())
    assert has_its_statistics(module, 3 * toy_data().tensors[0])


def test_a_target_is_called_in_the_place_of_the_module():
    class Own(ToyModule):
        def forward(self, x, y):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return self(*batch).square().mean()

        def validation_step(self, batch, batch_idx):
            self(*batch)

    module, _ = fit(ReestimateBatchNorm(target="net"), module=Own())
    assert has_its_statistics(module)
    with pytest.raises(ValueError, match=r"got Tensor for Own: TypeError.*Submodules with BatchNorm: net\."):
        fit(ReestimateBatchNorm(), module=Own())


@pytest.mark.filterwarnings("ignore:Found . module.s. in eval mode")
def test_a_frozen_layer_keeps_its_statistics():
    class Frozen(ToyModule):
        def __init__(self, both):
            super().__init__()
            self.net.append(nn.BatchNorm1d(2))
            self.net[1].eval()
            if both:
                self.net[-1].eval()

    module, _ = fit(ReestimateBatchNorm(), module=Frozen(both=False))
    assert module.net[1].running_mean.tolist() == [0] * 4
    assert module.net[-1].num_batches_tracked == 4  # those of one epoch
    with pytest.warns(UserWarning, match="has changed nothing: every BatchNorm is in eval mode"):
        module, _ = fit(ReestimateBatchNorm(), module=Frozen(both=True))
    assert module.net[-1].running_mean.tolist() == [0] * 2


def test_an_interrupted_fit_keeps_its_statistics():
    class Crash(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise ArithmeticError

    modules = [ToyModule(), ToyModule()]
    for module, callbacks in zip(modules, ([], [ReestimateBatchNorm()]), strict=True):
        L.seed_everything(1, verbose=False)
        module.net[0].reset_parameters()
        module.net[5].reset_parameters()
        with pytest.raises(ArithmeticError):
            toy_trainer(Crash(), *callbacks).fit(module, *toy_loaders())
    assert difference(*(module.state_dict() for module in modules)) == 0


def test_a_finished_run_that_is_resumed_gets_them_too(tmp_path):
    module, trainer = fit(ReestimateBatchNorm())
    expected = copy.deepcopy(module.state_dict())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    module.net[1].reset_running_stats()
    torch.save(torch.load(tmp_path / "end.ckpt") | {"state_dict": module.state_dict()}, tmp_path / "end.ckpt")
    resumed = ToyModule()
    toy_trainer(ReestimateBatchNorm()).fit(resumed, *toy_loaders(), ckpt_path=tmp_path / "end.ckpt")
    assert difference(resumed.state_dict(), expected) == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # by torch.compile itself, of `self.log`
@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_module(in_place):
    module = ToyModule()
    if in_place:
        module.compile(backend="eager")
    trainer = toy_trainer(ReestimateBatchNorm())
    trainer.fit(module if in_place else torch.compile(module, backend="eager"), *toy_loaders())
    assert has_its_statistics(module)


def test_mixed_precision_and_several_loaders():
    class Two(ToyModule):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    module, _ = fit(ReestimateBatchNorm(), precision="bf16-mixed")
    mean, _ = population(module)
    assert module.net[1].running_mean.dtype == torch.float32
    torch.testing.assert_close(module.net[1].running_mean, mean, rtol=0.02, atol=0.02)
    loaders = {"a": DataLoader(toy_data(), 8), "b": DataLoader(toy_data(16), 8)}
    with pytest.raises(ValueError, match="got dict for Two"):  # which of them, only a hook can say
        fit(ReestimateBatchNorm(), module=Two(), data=loaders)
    module, _ = fit(ReestimateBatchNorm(), data=[loaders["b"], loaders["b"]], module=Listed())
    assert has_its_statistics(module, toy_data(16).tensors[0])


class Listed(ToyModule):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch[0], batch_idx)


def test_a_trial_of_a_few_batches():
    module, _ = fit(ReestimateBatchNorm(), fast_dev_run=2, data=DataLoader(toy_data(), 8))
    assert has_its_statistics(module, toy_data().tensors[0][:16])


def test_a_fit_without_training():
    module = ToyModule()
    before = copy.deepcopy(module.state_dict())
    fit(ReestimateBatchNorm(), module=module, limit_train_batches=0)
    assert difference(module.state_dict(), before) == 0


class Stream(IterableDataset):
    def __iter__(self):
        return iter(toy_data())


def test_an_epoch_of_unknown_length_needs_a_number():
    loader = DataLoader(Stream(), 8)
    module = ToyModule()
    with pytest.raises(ValueError, match="`batches` must be given where the length of an epoch is unknown"):
        fit(ReestimateBatchNorm(), module=module, data=loader)
    assert module.global_step == 0
    module, _ = fit(ReestimateBatchNorm(2), data=loader)
    assert has_its_statistics(module, toy_data().tensors[0][:16])


# Bad input


@pytest.mark.parametrize("batches", [0, -1, 2.5])
def test_bad_batches(batches):
    with pytest.raises((TypeError, ValueError), match=f"`batches` must be (an integer|at least 1), got {batches}"):
        ReestimateBatchNorm(batches)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nett", r"`target` must name a submodule of ToyModule, got 'nett'. Submodules with BatchNorm: net\."),
        ("net.0", "`module` must have a BatchNorm with running statistics, got Conv2d with no BatchNorm"),
        ("net.1", "`target` must take the first element of a training batch, got Tensor for BatchNorm1d: ValueError"),
    ],
)
def test_bad_targets_show_before_training(target, message):
    module = ToyModule()
    if target == "net.1":
        module.net[1] = nn.BatchNorm1d(4)
        module.net[0] = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        module.net[5] = nn.Linear(4, 2)
    with pytest.raises(ValueError, match=message):
        fit(ReestimateBatchNorm(target=target), module=module)
    assert module.global_step == 0


def test_a_forward_that_calls_none():
    class Aside(ToyModule):
        def forward(self, x):
            return x.mean((2, 3)) * self.weight

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

    module = Aside()
    with pytest.raises(ValueError, match="`target` must call a BatchNorm, got Aside, whose forward calls none"):
        fit(ReestimateBatchNorm(), module=module)
    assert module.global_step == 0


@pytest.mark.gpu
def test_on_a_gpu_the_pass_runs_there():
    devices = set()

    class Look(ToyModule):
        def forward(self, x):
            devices.add((self.net[0].weight.device.type, x.device.type))
            return super().forward(x)

    module, _ = fit(ReestimateBatchNorm(), module=Look(), accelerator="gpu", devices=1)
    assert devices == {("cuda", "cuda")}
    assert module.device.type == "cpu"
    assert has_its_statistics(module)
