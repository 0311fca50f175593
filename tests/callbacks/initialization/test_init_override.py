import copy
import math
import pickle

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from lightning_trainingkit.callbacks.initialization.init_override import InitOverride

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


class Spy(L.LightningModule):
    """Notes its weights when the optimizer is made."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net or nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 200), nn.Tanh(), nn.Linear(200, 3))
        self.seen = {}

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def configure_optimizers(self):
        self.seen = copy.deepcopy(self.state_dict())
        return torch.optim.SGD(self.parameters(), 0.1)


class NoForward(L.LightningModule):
    """The autoencoder of Lightning's documentation."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, 4))


class Late(Spy):
    """Makes layers in its own hooks; the second hook decides what follows the layer of `__init__`."""

    def __init__(self):
        super().__init__(nn.Linear(4, 400))

    def setup(self, stage):
        self.early = self.net.weight.detach().clone()
        self.middle = nn.Linear(400, 300)

    def configure_model(self):
        self.head = nn.Linear(300, 2)

    def forward(self, x):
        return self.head(functional.relu(self.middle(functional.leaky_relu(self.net(x), 0.5))))


def fit(module, callback, **kwargs):
    trainer = L.Trainer(callbacks=[callback], **{**QUIET, "max_epochs": 1, **kwargs})
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4))
    return trainer


def begin(module, *args, stage="fit", **kwargs):
    """Run the callback's setup alone."""
    callback = InitOverride(*args, **{"verbose": False, **kwargs})
    callback.setup(L.Trainer(**QUIET), module, stage)
    return callback


def same(state, other):
    return all(torch.equal(value, other[name]) for name, value in state.items())


def test_gains_of_the_real_activations_before_the_optimizer_is_made():
    module = Spy()
    callback = InitOverride(verbose=False)
    fit(module, callback)
    assert [(row.layer, row.activation, row.gain) for row in callback.report] == [
        ("net.0", "relu", 2**0.5),
        ("net.2", "tanh", 5 / 3),
        ("net.4", "linear", 1.0),
    ]
    for row, size in zip(callback.report, (4, 300, 200), strict=True):
        weight = module.seen[f"{row.layer}.weight"]
        assert row.std_after == pytest.approx(weight.std(correction=0).item())
        assert row.std_after == pytest.approx(row.gain / math.sqrt(size), rel=0.1)
        assert not module.seen[f"{row.layer}.bias"].any()


def test_std_before_is_that_of_the_weight_as_found():
    module = Spy()
    before = module.net[2].weight.std(correction=0).item()
    assert begin(module, "normal(0.5)").report[1].std_before == pytest.approx(before)


def test_only_fit_initialises():
    module = Spy()
    state = copy.deepcopy(module.state_dict())
    for stage in ("validate", "test", "predict"):
        begin(module, stage=stage)
    assert same(state, module.state_dict())


def test_layers_made_in_setup_and_configure_model():
    module = Late()
    callback = InitOverride({"*": "kaiming_normal", "head": "constant(0.25)"}, verbose=False)
    fit(module, callback)
    assert [(row.layer, row.scheme, row.activation) for row in callback.report] == [
        ("net", "kaiming_normal", "leaky_relu"),
        ("middle", "kaiming_normal", "relu"),
        ("head", "constant(0.25)", "linear"),
    ]
    assert (module.seen["head.weight"] == 0.25).all()
    assert module.seen["net.weight"].std().item() == pytest.approx(math.sqrt(2 / 1.25 / 4), rel=0.1)
    assert module.seen["middle.weight"].std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.05)
    assert not {"setup", "configure_model"} & set(vars(module))


def test_a_layer_is_done_again_where_a_later_hook_changes_what_follows():
    class Growing(Spy):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(4, 400)))

        def configure_model(self):
            self.head = nn.Linear(400, 2)

        def forward(self, x):
            return self.head(functional.relu(self.net(x)))

    module = Growing()
    before = module.net[0].weight.std(correction=0).item()
    callback = InitOverride(verbose=False)
    fit(module, callback)
    row = callback.report[0]
    assert (row.activation, row.gain, row.std_before) == ("relu", 2**0.5, pytest.approx(before))
    assert row.std_after == pytest.approx(math.sqrt(2 / 4), rel=0.1)


def test_what_is_there_is_initialised_before_the_modules_own_setup():
    module = Late()
    fit(module, InitOverride("constant(0.125)", verbose=False))
    assert (module.early == 0.125).all()


def test_the_last_layer_of_an_unfinished_model_is_not_taken_for_the_head():
    module = Late()
    before = module.net.weight.detach().clone()
    fit(module, InitOverride({"head": "zeros"}, verbose=False))
    assert torch.equal(module.seen["net.weight"], before)
    assert not module.seen["head.weight"].any()


@pytest.mark.parametrize("make", [Spy, Late])
def test_resume_wins(make, tmp_path):
    first = make()
    trainer = fit(first, InitOverride(verbose=False))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = make()
    callback = InitOverride(verbose=False)
    L.Trainer(callbacks=[callback], max_epochs=1, **QUIET).fit(
        again, DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4), ckpt_path=tmp_path / "x.ckpt"
    )
    assert same(first.state_dict(), again.seen)


def test_a_second_fit_goes_on_and_says_nothing(capsys):
    module, callback = Spy(), InitOverride()
    fit(module, callback)
    trained, report = copy.deepcopy(module.state_dict()), callback.report
    assert "InitOverride" in capsys.readouterr().out
    fit(module, callback)
    assert same(trained, module.seen)
    assert callback.report == report
    assert "InitOverride" not in capsys.readouterr().out


def test_a_trained_layer_may_be_pruned_before_the_next_fit():
    module, callback = Spy(), InitOverride(verbose=False)
    fit(module, callback)
    prune.l1_unstructured(module.net[0], "weight", 0.5)
    fit(module, callback)
    assert len(callback.report) == 3


def test_hooks_are_put_back_after_a_failure():
    class Failing(Late):
        def setup(self, stage):
            raise RuntimeError("no data")

    module = Failing()
    with pytest.raises(RuntimeError, match="no data"):
        fit(module, InitOverride("zeros", verbose=False))
    assert not {"setup", "configure_model"} & set(vars(module))


def test_patterns_the_last_match_wins_and_the_rest_stays():
    module = Spy()
    kept = module.net[2].weight.detach().clone()
    callback = begin(module, {"net.[04]": "zeros", "head": "normal(0.01)", "net.0": nn.init.ones_})
    assert [(row.layer, row.scheme) for row in callback.report] == [("net.0", "ones_"), ("net.4", "normal(0.01)")]
    assert (module.net[0].weight == 1).all()
    assert torch.equal(module.net[2].weight, kept)
    assert module.net[2].bias.any()


def test_bias():
    module = Spy()
    begin(module, "zeros", bias=None)
    assert module.net[0].bias.any()
    begin(module, "zeros", bias="constant(0.5)")
    assert (module.net[0].bias == 0.5).all()
    begin(Spy(nn.Linear(4, 4, bias=False)), "zeros")


def test_same_seed_same_weights_as_torch():
    module = Spy(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, groups=2)))
    torch.manual_seed(1)
    begin(module)
    torch.manual_seed(1)
    assert torch.equal(module.net[0].weight, nn.init.kaiming_normal_(torch.empty(8, 3, 3, 3), nonlinearity="relu"))
    assert module.net[3].weight.std().item() == pytest.approx(1 / math.sqrt(4 * 9), rel=0.15)


def test_without_a_forward():
    callback = begin(NoForward())
    assert [row.activation for row in callback.report] == ["relu", "linear", "gelu", "linear"]


def test_what_follows_is_unknown():
    class Branching(Spy):
        def forward(self, x):
            return self.net(x) if x.sum() > 0 else self.other(x)

    module = Branching(nn.Linear(4, 4))
    module.other = nn.Linear(4, 4)
    message = r"`nonlinearity` must be given .* net, other \(the forward of Branching cannot be traced"
    with pytest.raises(ValueError, match=message):
        begin(module)
    assert [row.activation for row in begin(module, "xavier_normal").report] == [None, None]
    assert [row.gain for row in begin(module, nonlinearity="relu").report] == [2**0.5, 2**0.5]
    assert len(begin(module, {"*": "orthogonal", "net": "zeros", "other": "zeros"}).report) == 2


def test_nonlinearity_stands_for_all():
    assert {row.gain for row in begin(Spy(), nonlinearity="leaky_relu(1)").report} == {1.0}


def test_tied_weights_once():
    module = Spy(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    module.net[2].weight = module.net[0].weight
    assert [row.layer for row in begin(module).report] == ["net.0"]


def test_parametrised_weights():
    module = Spy(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4)))
    begin(module, "constant(0.5)")
    torch.testing.assert_close(module.net[0].weight, torch.full((4, 4), 0.5))

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(module.net[2], "weight", Doubled())
    with pytest.raises(ValueError, match=r"`net.2` must have a parametrisation with a `right_inverse`"):
        begin(module)


def test_layers_of_metrics_stay():
    class Distance(Metric):
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(4, 4)

        def update(self, x):
            raise AssertionError

        def compute(self):
            raise AssertionError

    module = NoForward()
    module.distance = Distance()
    before = module.distance.features.weight.detach().clone()
    assert len(begin(module, {"*": "zeros", "head": "zeros"}).report) == 4
    assert torch.equal(module.distance.features.weight, before)


def test_report_is_printed_with_what_was_left(capsys):
    class Attending(Spy):
        def forward(self, x):
            return self.net(self.attend(x, x, x)[0])

    module = Attending(nn.Sequential(nn.Linear(4, 4), nn.GELU()))
    module.attend = nn.MultiheadAttention(4, 2)
    begin(module, verbose=True)
    out = capsys.readouterr().out
    for text in ("attend.out_proj", "net.0", "gelu", "1.534", "attend.in_proj_weight"):
        assert text in out
    begin(module, {"net.0": "zeros"}, verbose=True)
    assert "in_proj" not in capsys.readouterr().out


def test_copies():
    callback = begin(Spy())
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert twin.report == callback.report
        twin.setup(L.Trainer(**QUIET), Spy(), "fit")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scheme": "he_normal"}, ValueError, "`scheme` must be a known scheme, got 'he_normal'"),
        ({"scheme": {"*": "normal(0)"}}, ValueError, "positive std, got 'normal"),
        ({"scheme": {}}, ValueError, "at least one pattern"),
        ({"scheme": nn.init.ones_}, TypeError, "string or a dict"),
        ({"scheme": {"*": 0.01}}, TypeError, "string or a function, got 0.01"),
        ({"bias": "kaiming_normal"}, ValueError, "`bias` must be"),
        ({"nonlinearity": "rleu"}, ValueError, "`nonlinearity` must be the name of an activation, got 'rleu'"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        InitOverride(**arguments)


def test_pattern_without_a_layer_lists_the_layers():
    with pytest.raises(ValueError, match=r"got 'net\.44', which matches none\. Nearest names: net\.4, "):
        begin(Spy(), {"net.44": "zeros"})
    with pytest.raises(ValueError, match=r"got 'haed'.*net\.0"):
        begin(Spy(), {"haed": "zeros"})
    with pytest.raises(ValueError, match=r"got 'haed'.*head.*middle"):
        fit(Late(), InitOverride({"haed": "zeros"}, verbose=False))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LazyLinear(3), "`net` must have a shape, got a lazy layer"),
        (lambda: nn.Linear(3, 4, device="meta"), "`net` must have storage"),
        (lambda: prune.l1_unstructured(nn.Linear(3, 4), "weight", 0.5), "`net` must hold its weight as a parameter"),
    ],
)
def test_weights_that_cannot_be_filled(make, message):
    with pytest.raises(ValueError, match=message):
        begin(Spy(make()), "zeros")


def test_zero_fan_in():
    layer = nn.Linear(3, 4)
    layer.weight = nn.Parameter(torch.empty(4, 0))
    with pytest.raises(ValueError, match=r"`net` must have inputs and outputs, got a weight of shape \(4, 0\)"):
        begin(Spy(layer))


def test_a_function_must_work_in_place():
    with pytest.raises(ValueError, match=r"`net.0` must be filled in place"):
        begin(Spy(), {"net.0": torch.zeros_like})


def test_a_misspelt_bias_is_called_a_bias():
    with pytest.raises(ValueError, match=r"`bias` must be zeros, constant\(value\), normal\(std\) or None, got 'zero'"):
        InitOverride(bias="zero")
