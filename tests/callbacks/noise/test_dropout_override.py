import copy
import pickle

import lightning as L
import pytest
import torch
from torch import nn

from lightning_trainingkit import DropoutOverride, MonteCarloDropout
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer


def with_net(net, kind=ToyModule):
    module = kind()
    module.net = net
    return module


class Spy(ToyModule):
    """Notes the rate of its dropout, and how much of a layer's output is zero, in each training step."""

    def __init__(self):
        super().__init__()
        self.rates, self.zeros = [], []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.net[4].p)
        self.zeros.append((self.net[0](batch[0]) == 0).float().mean().item())
        return super().training_step(batch, batch_idx)


def fit(rates, module=None, **options):
    L.seed_everything(0, verbose=False)
    module = module or Spy()
    trainer = toy_trainer(DropoutOverride(rates, verbose=False, **options), max_epochs=2)
    trainer.fit(module, *toy_loaders())
    return module


def test_rates_are_set_for_the_fit_and_the_own_rates_come_back():
    module = Spy()
    keys = list(module.state_dict())
    fit({"net.*": 0.9, "net.4": 0.2}, module)
    assert set(module.rates) == {0.2}
    assert module.net[4].p == 0.5
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize(
    ("schedule", "until", "expected"),
    [
        ("rise", 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4]),
        ("fall", 1.0, [0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05]),
        ("constant", 0.5, [0.4] * 4 + [0.0] * 4),
    ],
)
def test_schedules(schedule, until, expected):
    assert fit(0.4, schedule=schedule, until=until).rates == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_resumed_schedule_goes_on_where_it_was(tmp_path):
    whole, short = Spy(), Spy()
    for module, path in ((whole, None), (short, tmp_path / "epoch=0.ckpt")):
        saved = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, enable_version_counter=False)
        callbacks = [DropoutOverride(0.4, schedule="rise", verbose=False), saved]
        toy_trainer(*callbacks, max_epochs=2).fit(module, *toy_loaders(), ckpt_path=path)
    assert short.rates == whole.rates[4:]


def test_inserted_dropout_is_torch_s_and_goes_after_the_fit():
    module = fit({"net.0": 0.25})
    assert sum(module.zeros) / len(module.zeros) == pytest.approx(0.25, abs=0.02)
    assert module.rates == [0.5] * 8
    x = torch.randn(3, 1, 4, 4)
    assert not (module.train().net[0](x) == 0).any()
    plain = ToyModule()
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.eval()(x), module.eval()(x))


def test_inserted_dropout_equals_a_dropout_layer():
    torch.manual_seed(0)
    one = ToyModule()
    other = copy.deepcopy(one)
    other.net[0] = nn.Sequential(other.net[0], nn.Dropout(0.3))
    for module, callbacks in ((one, [DropoutOverride({"net.0": 0.3}, verbose=False)]), (other, [])):
        L.seed_everything(1, verbose=False)
        toy_trainer(*callbacks).fit(module, *toy_loaders())
    renamed = {key.replace("net.0.0", "net.0"): value for key, value in other.state_dict().items()}
    assert difference(one.state_dict(), renamed) == 0


def test_a_pattern_without_dropout_inserts_it_after_all_layers_but_the_last(capsys):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.Identity(), nn.Linear(8, 2))
    toy_trainer(DropoutOverride({"net.*": 0.1}), max_epochs=1).fit(with_net(net), *toy_loaders())
    printed = capsys.readouterr().out
    assert [name for name in ("net.0", "net.1", "net.3", "net.5") if name in printed] == ["net.0", "net.3"]
    assert "dropout of 0.1 on its output" in printed


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True), nn.Linear(16, 2)

    def forward(self, x):
        x = x.flatten(1)[:, None]
        return self.head(self.attention(x, x, x)[0][:, 0])


def test_rates_of_attention_are_set():
    seen = []

    class Looks(ToyModule):
        def training_step(self, batch, batch_idx):
            seen.append(self.net.attention.dropout)
            return super().training_step(batch, batch_idx)

    module = with_net(Attention(), Looks)
    toy_trainer(DropoutOverride(0.3, verbose=False), max_epochs=1).fit(module, *toy_loaders())
    assert set(seen) == {0.3}
    assert module.net.attention.dropout == 0.1


def test_monte_carlo_dropout_averages_over_the_inserted_dropout():
    module = ToyModule()
    module.net[4] = nn.Identity()
    masks = MonteCarloDropout(passes=3, stages=["test"])
    trainer = toy_trainer(DropoutOverride({"net.0": 0.3}, verbose=False), masks)
    trainer.test(module, toy_loaders()[1], verbose=False)
    assert "forward" not in vars(module.net[0])


def test_a_copy_of_a_layer_with_noise_calls_its_own_layer():
    from lightning_trainingkit.nn.layers.output_dropout import OutputDropout

    layer = nn.Linear(4, 4)
    noise = OutputDropout(layer, 0.5, "DropoutOverride")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        nn.init.zeros_(twin.weight), nn.init.ones_(twin.bias)
        assert set(twin(torch.randn(50, 4)).unique().tolist()) == {0.0, 2.0}
    noise.remove()
    assert set(vars(layer)) == set(vars(nn.Linear(4, 4)))


def test_code_that_was_compiled_before_gets_the_dropout_and_loses_it():
    module = ToyModule()
    module.net[4] = nn.Identity()
    module.net.compile(backend="eager")
    x = torch.randn(8, 1, 4, 4)
    module.net(x)
    spread = []

    class Looks(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            for part in pl_module.modules():
                part.eval()
            pl_module.net[0].train()
            spread.append((pl_module.net(x) - pl_module.net(x)).abs().max().item())

    toy_trainer(DropoutOverride({"net.0": 0.5}, verbose=False), Looks(), max_steps=1).fit(module, *toy_loaders())
    assert spread[0] > 0
    module.net.eval()
    module.net[0].train()
    assert torch.equal(module.net(x), module.net(x))
    with pytest.raises(ValueError, match="`schedule` must be 'constant'"):
        toy_trainer(DropoutOverride({"net.0": 0.5}, schedule="rise", verbose=False)).fit(module, *toy_loaders())


class Bypass(nn.Module):
    """Uses the weight of a layer in a function."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(nn.functional.linear(x.flatten(1), self.fc.weight))


@pytest.mark.parametrize(
    ("rates", "net", "rule"),
    [
        (1.0, None, "`rates` must be at least 0 and below 1, got 1.0"),
        ({"net.4": -0.1}, None, r"`rates\['net.4'\]` must be at least 0"),
        ({"net.4": "0.1"}, None, "must be a number"),
        ({}, None, "must be a rate or a dict"),
        (0.1, Bypass(), "must name layers where a model has no dropout"),
        ({"layers.*": 0.1}, None, r"'layers\.\*', which matches none\. Nearest names: net"),
        ({"net.fc": 0.1}, Bypass(), "the first batch did not call: net.fc"),
        ({"net.attention.out_proj": 0.1}, Attention(), "the attention around it uses directly"),
        ({"net.attention": 0.1, "net": 0.1}, Attention(), None),
    ],
)
def test_bad_input(rates, net, rule):
    module = ToyModule() if net is None else with_net(net)
    before = {name: set(vars(part)) for name, part in module.named_modules()}
    if rule is None:
        toy_trainer(DropoutOverride(rates, verbose=False), max_epochs=1).fit(module, *toy_loaders())
    else:
        with pytest.raises((TypeError, ValueError), match=rule):
            toy_trainer(DropoutOverride(rates, verbose=False), max_epochs=1).fit(module, *toy_loaders())
    assert {name: set(vars(part)) for name, part in module.named_modules() if name} == {
        name: held for name, held in before.items() if name
    }


def test_a_training_without_a_length_has_no_schedule():
    with pytest.raises(ValueError, match="`schedule` must be 'constant' where the training has no known length"):
        toy_trainer(DropoutOverride(0.1, schedule="rise", verbose=False), max_epochs=-1).fit(Spy(), *toy_loaders())


def test_dropout_in_place_spares_what_the_backward_pass_needs():
    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.0, inplace=True)  # as in timm's TNT

        def forward(self, x):
            return self.drop(x.softmax(1))

    module = with_net(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), Softmax(), nn.Linear(4, 2)))
    fit({"net.2.drop": 0.5}, module)
    assert (module.net[2].drop.p, module.net[2].drop.inplace) == (0.0, True)
