import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_trainingkit import MonteCarloDropout, StochasticDepth
from lightning_trainingkit._lightning import L
from tests.toy import Branch, ResidualModule, ToyModule, toy_loaders, toy_trainer


class Images(L.LightningModule):
    """Trains a net of another library on small images."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def images(side=32):
    data = torch.utils.data.TensorDataset(torch.randn(4, 3, side, side))
    return torch.utils.data.DataLoader(data, batch_size=2)


class Spy(ResidualModule):
    """Keeps which branches each training batch skipped."""

    def on_train_start(self):
        self.skipped = []

    def training_step(self, batch, batch_idx):
        seen = []
        hooks = [each.norm.register_forward_hook(lambda *args: seen.append(not args[2].any())) for each in self.blocks]
        loss = super().training_step(batch, batch_idx)
        for hook in hooks:
            hook.remove()
        self.skipped.append(tuple(seen))
        return loss

    @property
    def blocks(self):
        return [each for each in self.modules() if isinstance(each, Branch)]


def fit(module, *callbacks, loaders=None, **options):
    trainer = toy_trainer(*callbacks, **options)
    trainer.fit(module, *(loaders or toy_loaders()))
    return trainer


def test_branches_are_skipped_at_rates_that_grow_with_depth_and_follow_the_schedule():
    torch.manual_seed(0)
    module = Spy()
    fit(module, StochasticDepth(0.8, mode="batch", schedule="rise", verbose=False), max_epochs=20)
    first, second = torch.tensor(module.skipped, dtype=torch.float).unbind(1)
    early, late = slice(None, 40), slice(40, None)
    assert first[early].mean() < first[late].mean()
    assert second[early].mean() < second[late].mean()
    assert second.mean() > first.mean()
    assert second[late].mean() == pytest.approx(0.6, abs=0.2)


def test_skipped_branches_are_a_function_of_seed_epoch_and_batch():
    def skipped(seed, draws):
        torch.manual_seed(seed)
        module = Spy()
        torch.rand(draws)
        fit(module, StochasticDepth(0.5, mode="batch", verbose=False))
        return module.skipped

    assert skipped(0, 0) == skipped(0, 100) != skipped(1, 0)


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_evaluation_has_no_noise_and_the_end_leaves_nothing_behind(mode):
    module, keys = ResidualModule(), list(ResidualModule().state_dict())
    callback = StochasticDepth(0.9, mode=mode, verbose=False)

    class Check(L.Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            twice = [pl_module(batch[0]) for _ in range(2)]
            assert torch.equal(*twice)
            assert list(pl_module.state_dict()) == keys

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert callback.present_rates == pytest.approx(
                {f"net.{name}": rate for name, rate in {"2.relu": 0.45, "4.relu": 0.9}.items()}
            )

    fit(module, callback, Check())
    assert not any("forward" in vars(each) for each in module.modules())
    assert callback.present_rates == {}
    assert [row.layer for row in callback.report] == ["net.2.relu", "net.4.relu"]


@pytest.mark.parametrize("mode", ["row", "batch"])
@pytest.mark.parametrize(
    ("make", "attribute"),
    [
        (lambda: torchvision.models.swin_t(num_classes=2), "p"),
        (lambda: timm.create_model("convnext_atto", num_classes=2, drop_path_rate=0.3), "drop_prob"),
    ],
)
def test_layers_that_the_model_holds_already_get_the_rates_and_their_own_ones_back(make, attribute, mode):
    module = Images(make())
    drops = [each for each in module.modules() if type(each).__name__ in ("StochasticDepth", "DropPath")]
    own = [getattr(each, attribute) for each in drops]
    callback = StochasticDepth(0.1, mode=mode, verbose=False)

    class Check(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found = [getattr(each, attribute) for each in drops]
            assert found == sorted(found)
            if mode == "batch":
                assert not any(found)
            else:
                assert found[-1] == pytest.approx(0.1, rel=0.1)
            nested = [each for each in drops if "forward" in vars(each)]
            assert mode == "batch" or not nested

    fit(module, callback, Check(), loaders=[images()], max_epochs=1)
    assert [getattr(each, attribute) for each in drops] == own


def test_monte_carlo_dropout_averages_the_draws_and_leaves_batchnorm_in_eval_mode():
    module = ResidualModule()
    statistics = module.net[2].norm.running_mean.clone()
    noise = StochasticDepth(0.5, mode="batch", verbose=False)
    average = MonteCarloDropout(passes=8)
    toy_trainer(noise, average).test(module, toy_loaders()[1], verbose=False)
    assert torch.equal(module.net[2].norm.running_mean, statistics)
    plain = toy_trainer().test(module, toy_loaders()[1], verbose=False)
    with_noise = toy_trainer(noise, average).test(module, toy_loaders()[1], verbose=False)
    assert plain[0]["test/loss"] != with_noise[0]["test/loss"]


@pytest.mark.parametrize("rate", [1, -0.1, float("nan"), "0.5"])
def test_a_bad_rate(rate):
    with pytest.raises((TypeError, ValueError), match="`rate` must be"):
        StochasticDepth(rate)


def test_bad_modes_and_patterns():
    with pytest.raises(ValueError, match=r"`mode` must be one of 'row', 'batch'"):
        StochasticDepth(mode="column")
    with pytest.raises(TypeError, match="`layers` must be a name pattern"):
        StochasticDepth(layers={"*": 0.1})
    with pytest.raises(ValueError, match=r"Nearest names: net\.2, net\.4"):
        fit(ResidualModule(), StochasticDepth(layers="net.stage*"))


def test_a_model_without_residual_branches():
    with pytest.raises(ValueError, match=r"must have residual branches .* got none"):
        fit(ToyModule(), StochasticDepth())


def test_a_block_without_a_projection_is_none():
    module = ToyModule()

    class Shrinking(Branch):
        def forward(self, x):
            return torch.relu(self.norm(self.conv(x)))  # another shape could not be added

    module.net.insert(3, Shrinking(4))
    module.net.insert(3, Branch(4))
    with pytest.raises(ValueError, match=r"which add a branch .* got 'net\.4', which matches none"):
        fit(module, StochasticDepth(layers="net.4"))


def test_a_branch_that_no_layer_stands_for_is_left_or_refused():
    class Gated(Branch):
        def forward(self, x):
            return x + self.relu(self.norm(self.conv(x))) * self.conv(x)

    module = ResidualModule()
    module.net.insert(2, Gated(4))
    callback = StochasticDepth(verbose=False)
    fit(module, callback)
    assert [row.after.partition(":")[0] for row in callback.report][-1] == "left as it is"
    with pytest.raises(
        ValueError, match=r"blocks whose branch can be dropped, got 'net\.2' and `net\.2`, left as it is"
    ):
        fit(module, StochasticDepth(layers="net.2"))


def test_compiled_modules_cannot_skip():
    module = ResidualModule()
    module.net.compile()
    with pytest.raises(ValueError, match="`mode` must be 'row' for a compiled module"):
        fit(module, StochasticDepth(mode="batch"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.mobilenet_v3_small(num_classes=2),
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=32, depth=2),
        lambda: timm.create_model("res2net50_14w_8s", num_classes=2),
        lambda: nn.Sequential(Branch(3), nn.Flatten()),
    ],
)
def test_every_parameter_has_a_gradient_where_all_branches_are_skipped(make):
    module, kept, seen = Images(make()), [], []

    class Skip(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            for each in pl_module.modules():
                if hasattr(vars(each).get("forward"), "number"):
                    kept.append(each.forward.number)
                    each.forward.number = 0.0

    module.on_after_backward = lambda: seen.append([each.grad for each in module.parameters()])
    fit(module, StochasticDepth(0.5, mode="batch", verbose=False), Skip(), loaders=[images()], max_epochs=1)
    assert kept
    assert all(each is not None for each in seen[0])


class Twice(Branch):
    def forward(self, x):
        return super().forward(super().forward(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_block_stays_as_it_is():
    module = ResidualModule()
    module.net[2] = torch.jit.script(Branch(4))
    callback = StochasticDepth(verbose=False)
    fit(module, callback, max_epochs=1)
    assert callback.report[0].layer == "net.4.relu"
    assert "TorchScript" in callback.report[-1].after
    with pytest.raises(ValueError, match="whose branch can be dropped"):
        fit(module, StochasticDepth(layers="net.2", verbose=False), max_epochs=1)


def test_each_call_of_a_shared_block_drops_its_own_rows_and_none_skips_a_batch():
    torch.manual_seed(0)
    module, dropped = ResidualModule(), []
    module.net[2] = Twice(4)
    module.net[2].relu.register_forward_hook(lambda *args: dropped.append((args[2] == 0).flatten(1).all(1).tolist()))
    fit(module, StochasticDepth(0.5, layers="net.2", verbose=False), max_epochs=1)
    assert any(first != second for first, second in zip(dropped[::2], dropped[1::2], strict=True))
    with pytest.raises(ValueError, match="calls several times"):
        fit(module, StochasticDepth(layers="net.2", mode="batch", verbose=False), max_epochs=1)


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_a_frozen_batch_norm_at_the_end_of_a_branch_does_not_stop_the_noise(mode):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

        def forward(self, x):
            return x + self.branch(x)

    class Frozen(ResidualModule):
        def __init__(self):
            super().__init__()
            self.net[2] = Block()

        def on_train_epoch_start(self):
            for each in self.modules():
                if isinstance(each, nn.BatchNorm2d):
                    each.eval().requires_grad_(False)

        def training_step(self, batch, batch_idx):
            self.outputs = [self(batch[0]) for _ in range(8)]
            return super().training_step(batch, batch_idx)

    module, plain = Frozen(), Frozen()
    plain.load_state_dict(module.state_dict())
    for each, callbacks in ((module, [StochasticDepth(0.9, layers="net.2", mode=mode, verbose=False)]), (plain, [])):
        fit(each, *callbacks, max_epochs=1, limit_train_batches=4)
    assert all(torch.equal(one, plain.outputs[0]) for one in plain.outputs)
    if mode == "row":
        assert not all(torch.equal(one, module.outputs[0]) for one in module.outputs)
    else:
        assert not torch.equal(module.outputs[0], plain.outputs[0])


def test_a_rate_of_0_switches_the_models_own_stochastic_depth_off():
    module, rates = Images(torchvision.models.efficientnet_b0(num_classes=2)), []
    drops = [each for each in module.modules() if isinstance(each, torchvision.ops.StochasticDepth)]
    own = [each.p for each in drops]
    for each in drops:
        each.register_forward_hook(lambda drop, *args: rates.append(drop.p))
    toy_trainer(StochasticDepth(0, verbose=False), max_epochs=1, limit_train_batches=1).fit(module, images())
    assert len(rates) == 9
    assert not any(rates)
    assert [each.p for each in drops] == own


def test_attention_with_positions_first_has_no_rows_of_examples():
    class Tokens(Images):
        def training_step(self, batch, batch_idx):
            return self.net(batch[0].flatten(2).permute(2, 0, 1)).square().mean()

    module = Tokens(nn.Sequential(*(nn.TransformerEncoderLayer(3, 1, 8, batch_first=False) for _ in range(2))))
    with pytest.raises(ValueError, match="batch_first=False"):
        toy_trainer(StochasticDepth(0.5, verbose=False), max_epochs=1).fit(module, images(4))
