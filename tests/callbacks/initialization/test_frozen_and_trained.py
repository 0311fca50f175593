"""What InitOverride must not draw: frozen layers, copies, trained weights, what another callback freezes."""

import copy
import json
from collections import UserDict

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from lightning_trainingkit import (
    BestCheckpoint,
    ChannelsLast,
    CommandCenter,
    EarlyStopping,
    EpochSeed,
    InitOverride,
    ReestimateBatchNorm,
    SnapshotCheckpoint,
    TransferLearning,
)
from lightning_trainingkit.nn import load_best
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer


class Noted(ToyModule):
    """Notes its weights when the optimizer is made."""

    def __init__(self):
        super().__init__()
        self.begun = None

    def configure_optimizers(self):
        self.begun = copy.deepcopy(self.state_dict())
        return super().configure_optimizers()


class Momentum(Noted):
    """Trains a net, and holds a frozen copy of it."""

    def __init__(self):
        super().__init__()
        self.target = copy.deepcopy(self.net).requires_grad_(False)


def fit(module, *callbacks, **options):
    trainer = toy_trainer(*callbacks, **{"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1} | options)
    trainer.fit(module, *toy_loaders())
    return trainer


def begin(module, *args, **options):
    callback = InitOverride(*args, **{"verbose": False} | options)
    callback.setup(toy_trainer(callback), module, "fit")
    return callback


def pairs(module):
    return zip(module.net.parameters(), module.target.parameters(), strict=True)


@pytest.mark.parametrize("scheme", ["kaiming_normal", {"net.*": "normal(0.5)"}, {"*": "zeros", "target.*": "ones"}])
def test_a_frozen_copy_stays_a_copy(scheme):
    module = Momentum()
    before = module.net[0].weight.detach().clone()
    if isinstance(scheme, dict):
        scheme = {name: nn.init.ones_ if rule == "ones" else rule for name, rule in scheme.items()}
    callback = begin(module, scheme, bias="normal(0.1)")
    assert not torch.equal(module.net[0].weight, before)
    assert all(torch.equal(mine, other) for mine, other in pairs(module))
    copies = {row.layer: row.scheme for row in callback.report if row.scheme.startswith("copy")}
    assert copies == {"target.0": "copy of net.0", "target.5": "copy of net.5"}
    assert {row.std_after for row in callback.report if row.layer.endswith(".5")} == {
        module.net[5].weight.std(correction=0).item()
    }


def test_copies_of_equal_layers_follow_the_layer_of_their_own_name():
    class Encoders(Noted):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
            self.target = copy.deepcopy(self.encoder).requires_grad_(False)

        def forward(self, x):
            return self.net(self.encoder(x.flatten(1, 2)).unsqueeze(1))

    module = Encoders()
    begin(module, "xavier_normal")
    for one, other in zip(module.encoder.layers, module.target.layers, strict=True):
        assert torch.equal(one.linear1.weight, other.linear1.weight)
    assert not torch.equal(module.encoder.layers[0].linear1.weight, module.encoder.layers[1].linear1.weight)


def test_frozen_layers_stay_and_the_table_says_so(capsys):
    module = Noted()
    module.net[0].requires_grad_(False)
    before = module.net[0].weight.clone()
    for scheme in ("kaiming_normal", {"*": "zeros", "head": "normal(0.1)"}):
        callback = begin(module, scheme, verbose=True)
        assert torch.equal(module.net[0].weight, before)
        assert [row.layer for row in callback.report] == ["net.5"]
        assert "being frozen: net.0" in capsys.readouterr().out
    begin(module, {"net.*": "zeros"})
    assert not module.net[0].weight.any()


def test_a_constant_frozen_weight_is_no_copy():
    module = Momentum()
    for net in (module.net, module.target):
        nn.init.zeros_(net[5].weight)
    assert [row.layer for row in begin(module).report] == ["net.0", "net.5", "target.0"]


def test_weights_that_train_with_a_frozen_bias_are_drawn_and_frozen_ones_with_a_bias_that_trains_are_not():
    module = Noted()
    module.net[0].bias.requires_grad_(False)
    module.net[5].weight.requires_grad_(False)
    assert [row.layer for row in begin(module).report] == ["net.0"]


def test_a_module_that_is_frozen_as_a_whole_is_refused():
    with pytest.raises(ValueError, match=r"`scheme` must name the frozen layers .* are frozen: net.0, net.5"):
        begin(Noted().requires_grad_(False))


class FreezesLate(Momentum):
    """Freezes the copy in its setup."""

    loads = False

    def __init__(self):
        super().__init__()
        self.target.requires_grad_(True)

    def setup(self, stage):
        if self.loads:
            self.loaded = torch.randn(4, 1, 3, 3)
            self.target[0].load_state_dict({"weight": self.loaded, "bias": torch.zeros(4)})
            self.target[5].load_state_dict(nn.Linear(16, 2).state_dict())
        self.target.requires_grad_(False)


def test_a_layer_that_the_modules_setup_freezes_is_refused_unless_it_has_loaded_it():
    with pytest.raises(ValueError, match=r"`target.0` must be frozen in `__init__`"):
        fit(FreezesLate(), InitOverride(verbose=False))
    module = FreezesLate()
    module.loads = True
    fit(module, InitOverride("normal(0.01)", verbose=False))
    assert torch.equal(module.begun["target.0.weight"], module.loaded)


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda: InitOverride(verbose=False),
            lambda: EpochSeed(1),
            ChannelsLast,
            lambda: ReestimateBatchNorm(batches=1),
        ),
        lambda: EarlyStopping("val/loss", restore_best=False),
        lambda: BestCheckpoint("val/loss", "min"),
        lambda: SnapshotCheckpoint(1),
        lambda: TransferLearning("small_data", verbose=False),
        lambda: CommandCenter(group="test"),
    ],
)
def test_what_a_fit_with_the_kit_has_trained_is_refused(make):
    module = Noted()
    fit(module, make())
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=r"`again` must be True where layers are trained.*net.0, net.5"):
        fit(module, InitOverride(verbose=False))
    assert difference(before, module.state_dict()) == 0
    module.net[5] = nn.Linear(16, 2)
    begin(module, {"head": "zeros"})  # a new head is not trained
    assert not module.net[5].weight.any()
    fit(module, InitOverride("constant(0.5)", again=True, verbose=False))
    assert (module.begun["net.0.weight"] == 0.5).all()


def test_what_load_best_has_loaded_is_refused(tmp_path):
    torch.save(Noted().state_dict(), tmp_path / "x.ckpt")
    (tmp_path / "best.json").write_text(json.dumps({"best": "x.ckpt"}))
    module = Noted()
    load_best(module, tmp_path)
    with pytest.raises(ValueError, match="Leave InitOverride out to train on"):
        begin(module)


def test_a_trainer_that_has_trained_before_is_refused_and_the_same_callback_goes_on():
    module, callback = Noted(), InitOverride(verbose=False)
    trainer = toy_trainer(callback, max_epochs=1)
    trainer.fit(module, *toy_loaders())
    trained = copy.deepcopy(module.state_dict())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, *toy_loaders())
    assert difference(module.begun, trained) == 0
    trainer.callbacks[trainer.callbacks.index(callback)] = InitOverride(verbose=False)
    with pytest.raises(ValueError, match="`again` must be True"):
        trainer.fit(Noted(), *toy_loaders())


def test_a_fit_that_fails_before_its_first_step_leaves_the_module_untrained():
    class Failing(Noted):
        fails = True

        def training_step(self, batch, batch_idx):
            if self.fails:
                raise ArithmeticError
            return super().training_step(batch, batch_idx)

    module = Failing()
    with pytest.raises(ArithmeticError):
        fit(module, InitOverride(verbose=False))
    module.fails = False
    fit(module, InitOverride(verbose=False))


def test_the_mark_is_not_in_the_module():
    module = Noted()
    names = set(vars(module))
    fit(module, InitOverride(verbose=False))
    assert set(vars(module)) - names <= {"_fabric"}
    assert module.state_dict().keys() == Noted().state_dict().keys()
    begin(copy.deepcopy(module))


@pytest.mark.parametrize(
    ("scheme", "phases", "said"),
    [
        ("kaiming_normal", "small_data", "got 'kaiming_normal', which matches net.0"),
        ({"net.0": "zeros", "head": "zeros"}, "small_data", "which matches net.0"),
        ({"head": "zeros"}, "small_data", None),
        ({"head": "zeros"}, [{"train": "net.0"}, {"train": "all", "start": 1}], "which matches net.5"),
        ("kaiming_normal", [{"train": "all"}], None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_beside_transfer_learning_only_what_its_first_phase_trains_is_drawn(scheme, phases, said, first):
    module = Noted()
    before = module.net[0].weight.detach().clone()
    callbacks = [InitOverride(scheme, verbose=False), TransferLearning(phases, verbose=False)]
    if said is None:
        fit(module, *callbacks[:: 1 if first else -1], max_epochs=2)
        assert torch.equal(module.begun["net.0.weight"], before) == isinstance(scheme, dict)
        return
    with pytest.raises(ValueError, match=f"`scheme` must be a dict .* the first phase of TransferLearning .*{said}"):
        fit(module, *callbacks[:: 1 if first else -1], max_epochs=2)
    assert torch.equal(module.net[0].weight, before)


def test_a_head_that_the_modules_setup_makes_is_drawn_beside_transfer_learning():
    class Late(Noted):
        def setup(self, stage):
            self.net[5] = nn.Linear(16, 2)

    module = Late()
    fit(module, InitOverride({"head": "constant(0.5)"}, verbose=False), TransferLearning("small_data", verbose=False))
    assert (module.begun["net.5.weight"] == 0.5).all()


def freeze_first(module):
    module.net[0].requires_grad_(False)


def new_head(module):
    module.net[5] = nn.Linear(16, 2)


@pytest.mark.parametrize("change", [freeze_first, new_head])
def test_transfer_learning_plans_again_where_configure_optimizers_changes_the_module(change):
    class Changed(ToyModule):
        def configure_optimizers(self):
            change(self)
            return torch.optim.SGD([each for each in self.parameters() if each.requires_grad], lr=0.1)

    module = Changed()
    transfer = TransferLearning([{"train": "all"}], verbose=False)
    phase: set[str] = set()

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            self.before = copy.deepcopy(pl_module.state_dict())
            phase.update(transfer.learning_rates)

    look = Look()
    fit(module, transfer, InitOverride(verbose=False), look)  # whose `setup` asks `transfer` for its plan
    after = module.state_dict()
    moved = {name for name in after if not torch.equal(look.before[name], after[name])}
    assert "net.5.weight" in moved
    assert phase == {name for name, each in module.named_parameters() if each.requires_grad}
    assert ("net.0.weight" in moved) == (change is new_head)


def test_beside_lightnings_finetuning_it_is_refused():
    with pytest.raises(ValueError, match="must not hold Lightning's BaseFinetuning beside InitOverride"):
        fit(Noted(), InitOverride(verbose=False), BackboneFinetuning())


@pytest.mark.parametrize("make", [lambda: InitOverride(verbose=False), lambda: EpochSeed(1), ChannelsLast])
def test_a_callback_given_twice_is_refused(make):
    with pytest.raises(ValueError, match=r"`callbacks` must hold one \w+, got 2"):
        fit(Noted(), make(), make())


def test_transfer_learning_given_twice_is_refused_by_lightning():
    with pytest.raises(RuntimeError, match="TransferLearning"):
        L.Trainer(callbacks=[TransferLearning("small_data"), TransferLearning("small_data")], logger=False)


def test_a_mapping_that_is_no_dict_is_a_scheme():  # as hydra gives it
    module = Noted()
    begin(module, UserDict({"net.*": "zeros", "head": "constant(0.5)"}))
    assert (module.net[5].weight == 0.5).all()
    assert not module.net[0].weight.any()
