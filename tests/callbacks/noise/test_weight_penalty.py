import copy

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from sklearn.linear_model import ElasticNet
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from lightning_trainingkit import TransferLearning, WeightPenalty
from lightning_trainingkit._lightning import BaseFinetuning, L
from lightning_trainingkit.callbacks.command_center.settings import settings_of
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer

CHOSEN = ("net.0.weight", "net.5.weight")


def fitted(module, *callbacks, **options):
    L.seed_everything(0, verbose=False)
    trainer = toy_trainer(*callbacks, **options)
    trainer.fit(module, *toy_loaders())
    return trainer


def toy(kind=ToyModule, **arguments):
    L.seed_everything(1, verbose=False)
    return kind(**arguments)


class InTheLoss(ToyModule):
    """The formula, added to the loss by hand."""

    l1, l2 = 0.01, 0.02

    def training_step(self, batch, batch_idx):
        named = dict(self.named_parameters())
        penalty = sum((self.l1 * named[n].abs() + self.l2 * named[n] ** 2).sum() for n in CHOSEN)
        return super().training_step(batch, batch_idx) + penalty


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_clip_val": 0.1},
        {"accumulate_grad_batches": 3},  # the last window of an epoch holds one of four batches
        {"plugins": "scaler"},
    ],
    ids=["plain", "clipping", "accumulation", "scaler"],
)
def test_a_training_equals_one_with_the_formula_in_the_loss(options):
    """Momentum, a schedule, BatchNorm and dropout are in the module, so that all updates must agree."""

    def fit(module, *callbacks):
        made = dict(options)
        if "plugins" in made:
            scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
            made["plugins"] = [MixedPrecision("bf16-mixed", "cpu", None)]
            made["plugins"][0].scaler = scaler
        return fitted(module, *callbacks, **made)

    module, reference = toy(), toy(InTheLoss)
    fit(module, WeightPenalty(l1=0.01, l2=0.02, verbose=False))
    fit(reference)
    assert difference(module.state_dict(), reference.state_dict()) < 1e-5
    plain = toy()
    fit(plain)
    assert difference(module.state_dict(), plain.state_dict()) > 1e-3


class Linear(L.LightningModule):
    def __init__(self, features, lr, gamma=1.0):
        super().__init__()
        self.linear = nn.Linear(features, 1).double()
        self.lr, self.gamma = lr, gamma

    def training_step(self, batch, batch_idx):
        return mse_loss(self.linear(batch[0]).squeeze(1), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.gamma)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.parametrize(("proximal", "steps", "gamma"), [(True, 200, 1.0), (False, 500, 0.98)])
@pytest.mark.parametrize(("strength", "beta"), [(0.2, 0.5), (0.4, 0.0)])
def test_a_linear_model_is_scikit_learns_elastic_net(proximal, steps, gamma, strength, beta):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=generator, dtype=torch.float64)
    truth = torch.tensor([2.0, -1.0, 0.5, 0, 0, 0, 0, 0, 0, 0.05], dtype=torch.float64)
    y = x @ truth + 0.1 * torch.randn(200, generator=generator, dtype=torch.float64) + 1
    peer = ElasticNet(alpha=strength * (0.5 + beta), l1_ratio=1 / (1 + 2 * beta), tol=1e-10, max_iter=10_000)
    peer.fit(x.numpy(), y.numpy())
    module = Linear(10, lr=0.2, gamma=gamma)
    penalty = WeightPenalty(l1=strength, l2=strength * beta, proximal=proximal, verbose=False)
    toy_trainer(penalty, max_epochs=1, limit_val_batches=0).fit(module, DataLoader([(x, y)] * steps, None))
    found = module.linear.weight[0].detach()
    torch.testing.assert_close(found, torch.from_numpy(peer.coef_), atol=1e-4, rtol=0)
    assert module.linear.bias.item() == pytest.approx(peer.intercept_, abs=1e-4)
    if proximal:
        assert 0 < (found == 0).sum() < 10
        assert torch.equal(found == 0, torch.from_numpy(peer.coef_ == 0))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_proximal_step_uses_the_present_rate_of_each_group(kind):
    """Followed by hand: the optimizer's step, then a threshold of the group's rate times the penalty."""
    rates = {}

    class Grouped(ToyModule):
        def configure_optimizers(self):
            groups = [
                {"params": self.net[0].parameters(), "lr": 0.1},
                {"params": [*self.net[1].parameters(), *self.net[5].parameters()], "lr": 0.01},
            ]
            optimizer = kind(groups, weight_decay=0.0)
            optimizer.register_step_post_hook(self.see)  # before the callback's hook
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def see(self, optimizer, args, kwargs):
            rates["now"] = [group["lr"] for group in optimizer.param_groups]
            self.stepped = {name: value.clone() for name, value in self.state_dict().items()}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            for name, value in self.stepped.items():
                rate = rates["now"][0 if name.startswith("net.0") else 1]
                shrunk = value.sign() * (value.abs() - rate * 0.5).clamp_min(0) / (1 + 2 * rate * 0.1)
                expected = shrunk if name in CHOSEN else value
                torch.testing.assert_close(self.state_dict()[name], expected)

    module = toy(Grouped)
    fitted(module, WeightPenalty(l1=0.5, l2=0.1, proximal=True, verbose=False), max_epochs=1)
    assert (module.net[0].weight == 0).any()
    assert rates["now"] == pytest.approx([0.1 / 8, 0.01 / 8])


def test_the_value_is_logged_apart_from_the_loss():
    seen = []

    class Spy(ToyModule):
        def training_step(self, batch, batch_idx):
            self.weights = [dict(self.named_parameters())[n].detach().clone() for n in CHOSEN]
            return super().training_step(batch, batch_idx)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(({k: v.item() for k, v in self.trainer.callback_metrics.items()}, self.weights))

    module = toy(Spy)
    fitted(module, WeightPenalty(l1=0.1, l2=0.2, verbose=False), accumulate_grad_batches=2, max_epochs=1)
    logged = [(metrics, weights) for metrics, weights in seen if "penalty/value" in metrics]
    assert len(seen) == 4
    for metrics, weights in logged[::2]:
        value = sum((0.1 * w.abs() + 0.2 * w**2).sum().item() for w in weights)
        assert metrics["penalty/value"] == pytest.approx(value)
        assert metrics["penalty/loss"] == pytest.approx(metrics["train/loss"])
        assert metrics["penalty/loss_with"] == pytest.approx(metrics["train/loss"] + value)


def test_norms_and_biases_only_if_asked_for(capsys):
    before = toy().state_dict()

    class Still(ToyModule):
        def training_step(self, batch, batch_idx):
            return 0 * super().training_step(batch, batch_idx)

    def moved(**arguments):
        module = toy(Still)
        fitted(module, WeightPenalty(l2=0.1, **arguments), max_epochs=1)
        return {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}

    assert moved() == set(CHOSEN)
    assert "l2=0.1 by gradients on 2 weights with 68 elements: net.0.weight, net.5.weight." in " ".join(
        capsys.readouterr().out.split()
    )
    assert moved(layers="net.5", verbose=False) == {"net.5.weight"}
    assert moved(layers=["*.bias", "net.1"], norms_and_biases=True) == {"net.0.bias", "net.1.weight", "net.5.bias"}


def test_frozen_weights_stay_until_they_are_unfrozen():
    class Unfreezing(ToyModule):
        def on_train_epoch_start(self):
            self.before = self.net[0].weight.detach().clone()
            self.net[0].requires_grad_(self.current_epoch > 0)

        def on_train_epoch_end(self):
            assert torch.equal(self.before, self.net[0].weight) == (self.current_epoch == 0)

    fitted(toy(Unfreezing), WeightPenalty(l1=0.1, proximal=True, verbose=False))


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_a_skipped_batch_changes_nothing():
    class Skipping(ToyModule):
        def training_step(self, batch, batch_idx):
            return None

    module = toy(Skipping)
    before = copy.deepcopy(module.state_dict())
    for proximal in (False, True):
        penalty = WeightPenalty(l1=0.1, proximal=proximal, verbose=False)
        trainer = fitted(module, penalty, max_epochs=1)
        assert difference(module.state_dict(), before) == 0
        assert "penalty/value" not in trainer.callback_metrics


def test_tied_weights_are_counted_once():
    class Tied(ToyModule):
        def __init__(self):
            super().__init__()
            self.twin = self.net[5]

    module, reference = toy(Tied), toy(InTheLoss)
    fitted(module, WeightPenalty(l1=0.01, l2=0.02, verbose=False))
    fitted(reference)
    assert difference({n: module.state_dict()[n] for n in reference.state_dict()}, reference.state_dict()) < 1e-6


@pytest.mark.parametrize("raises", [False, True])
def test_the_optimizer_keeps_no_hooks(raises):
    class Raising(ToyModule):
        def on_train_epoch_end(self):
            self.optimizer = self.optimizers().optimizer
            if raises:
                raise ArithmeticError

    module = toy(Raising)
    if raises:
        with pytest.raises(ArithmeticError):
            fitted(module, WeightPenalty(l1=0.1, proximal=True, verbose=False))
    else:
        fitted(module, WeightPenalty(l1=0.1, proximal=True, verbose=False))
    assert not module.optimizer._optimizer_step_post_hooks
    assert not module.optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"l1": -1e-5}, "`l1` must be at least 0, got -1e-05"),
        ({"l2": float("inf")}, "`l2` must be finite"),
        ({}, "`l1` or `l2` must be above 0"),
        ({"l1": "1"}, "`l1` must be a number"),
        ({"l1": 1, "layers": 3}, "`layers` must be a pattern"),
        ({"l1": 1, "layers": []}, "`layers` must hold patterns"),
        ({"l1": 1, "proximal": 1}, "`proximal` must be True or False"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        WeightPenalty(**arguments)


class Manual(ToyModule):
    automatic_optimization = False


class Frozen(ToyModule):
    def __init__(self):
        super().__init__()
        self.net[0].requires_grad_(False)


class Decayed(ToyModule):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Lbfgs(ToyModule):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters())


class TensorRate(ToyModule):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), torch.tensor(1e-3))


class Sparse(ToyModule):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 2, sparse=True)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.table(batch[1]).sum()


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (ToyModule, {"l1": 1, "layers": "nett.*"}, "got 'nett.\\*', which matches none. Nearest names: net"),
        (ToyModule, {"l1": 1, "layers": "net.1"}, "matches norms and biases alone: net.1.weight, net.1.bias"),
        (Frozen, {"l1": 1, "layers": "net.0"}, "matches net.0.weight: all frozen"),
        (Manual, {"l1": 1}, "`automatic_optimization` must be True"),
        (Decayed, {"l2": 0.1}, "weight decay on net.0.weight, net.5.weight: their squares would be counted twice"),
        (Lbfgs, {"l1": 1}, "got LBFGS"),
        (TensorRate, {"l1": 1, "proximal": True}, "`lr` must be a number"),
        (Sparse, {"l1": 1}, "`table.weight` must have a dense gradient"),
    ],
)
def test_refused(kind, arguments, message):
    module = toy(kind)
    before = copy.deepcopy(dict(module.named_parameters()))
    with pytest.raises((TypeError, ValueError), match=message):
        fitted(module, WeightPenalty(**arguments, verbose=False))
    assert difference(dict(module.named_parameters()), before) == 0


def test_l1_beside_weight_decay_is_said(capsys):
    fitted(toy(Decayed), WeightPenalty(l1=1e-3), max_epochs=1)
    assert "weight decay acts on 2 of them too" in " ".join(capsys.readouterr().out.split())


def test_weights_that_a_callback_adds_later(capsys):
    """Their weight decay is looked at too."""

    class Later(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)

    class Filtered(ToyModule):
        def configure_optimizers(self):
            trained = [p for p in self.parameters() if p.requires_grad]
            return torch.optim.AdamW(trained, 1e-3)

    with pytest.raises(ValueError, match=r"weight decay on net\.0\.weight"):
        fitted(toy(Filtered), WeightPenalty(l2=1e-3, layers="net.0", verbose=False), Later())


def test_two_penalties():
    with pytest.raises(ValueError, match="`callbacks` must hold one WeightPenalty, got 2"):
        fitted(toy(), WeightPenalty(l1=1e-3), WeightPenalty(l2=1e-3))


def test_layers_that_transfer_learning_opens_later():
    class Spy(ToyModule):
        moved = ()

        def on_train_epoch_start(self):
            self.before = self.net[0].weight.detach().clone()

        def on_train_epoch_end(self):
            self.moved += (not torch.equal(self.before, self.net[0].weight),)

    module = toy(Spy)
    phases = TransferLearning([{"train": "head"}, {"train": "all", "start": 1}], verbose=False)
    fitted(module, phases, WeightPenalty(l1=10.0, layers="net.0", proximal=True, verbose=False))
    assert module.moved == (False, True)
    assert (module.net[0].weight == 0).any()


def test_the_report_counts_weights_that_train_later(capsys):
    phases = TransferLearning([{"train": "head"}, {"train": "all", "start": 1}], verbose=False)
    fitted(toy(), phases, WeightPenalty(l1=1e-5))
    said = capsys.readouterr().out
    assert "on 1 weights" in said
    assert f"{len(CHOSEN) - 1} more join when they train" in said


def test_the_arguments_stand_in_the_config_of_a_run():
    trainer = toy_trainer(WeightPenalty(l1=1e-3, layers=("net.*",), proximal=True, verbose=False), max_epochs=1)
    trainer.fit(toy(), *toy_loaders())
    config = settings_of(trainer)["callbacks"]["WeightPenalty"]
    assert config["l1"] == 1e-3
    assert config["layers"] == ["net.*"]
    assert config["proximal"] is True
