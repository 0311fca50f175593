"""Step 3 finds a rate below the cliff, names it for each group, and changes nothing."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning import find_learning_rate, rate_search
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer

OPTIONS = {"accelerator": "cpu"}


@pytest.fixture
def _short_trials(monkeypatch):
    monkeypatch.setattr(rate_search, "ITERATIONS", 40)


short_trials = pytest.mark.usefixtures("_short_trials")


class Quadratic(L.LightningModule):
    """Least squares by gradient descent. It diverges at rates above 2 over the largest curvature."""

    def __init__(self, size=1.0):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.zeros(4))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return (x @ self.weight - y).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=1.0)

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x = self.size * torch.randn(64, 4, generator=generator)
        return DataLoader(TensorDataset(x, x @ torch.ones(4) / self.size), 16, shuffle=True)

    def cliff(self):
        x = self.train_dataloader().dataset.tensors[0]
        return 2 / torch.linalg.eigvalsh(2 * x.T @ x / len(x)).max().item()


@pytest.mark.parametrize("size", [1.0, 0.5, 1e3])
def test_the_rate_is_below_the_cliff_that_theory_gives(size):
    module = Quadratic(size)
    found = find_learning_rate(module, None, trainer_options=OPTIONS)
    assert module.cliff() / 50 < found.rate <= module.cliff() / 2
    assert found.verdict == "pass"
    assert found.value == found.rate == found.rates["SGD"]
    assert found.iterations <= 800
    assert [each.rate for each in found.trials] == sorted(each.rate for each in found.trials)


@short_trials
def test_a_fit_after_it_equals_a_fit_without_it():
    def fit(search):
        L.seed_everything(0, verbose=False)
        module, loaders = ToyModule(), toy_loaders()
        if search:
            find_learning_rate(module, loaders[0], candidates=[0.01, 0.1], trainer_options=OPTIONS)
        toy_trainer().fit(module, *loaders)
        return module.state_dict()

    assert difference(fit(True), fit(False)) == 0


class TwoOptimizers(ToyModule):
    """Manual optimization: discriminative rates and a warm-up in one optimizer, and another for the head."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self):
        body = torch.optim.SGD(
            [{"params": self.net[0].parameters(), "lr": 0.01}, {"params": self.net[1].parameters()}], 0.1
        )
        head = torch.optim.AdamW(self.net[5].parameters(), lr=0.001, weight_decay=0.1)
        return [body, head], [torch.optim.lr_scheduler.LinearLR(body, 0.5)]


def test_optimizers_and_groups_keep_their_proportions():
    found = find_learning_rate(TwoOptimizers(), toy_loaders()[0], candidates=[0.3], trainer_options=OPTIONS)
    assert found.rates == pytest.approx({"SGD/pg1": found.rate / 10, "SGD/pg2": found.rate, "AdamW": found.rate / 100})
    assert "SGD/pg1" in found.advice
    assert found.notes == ("The trials had a weight decay of at most 0.0001.",)


class NoLoss(TwoOptimizers):
    """Manual optimization that returns nothing."""

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)


class SkipsBatches(ToyModule):
    """A training step that returns None."""

    def training_step(self, batch, batch_idx):
        return None


class Frozen(ToyModule):
    """A rate of zero."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class NoGraph(ToyModule):
    """A loss without a graph."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx).detach()


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (NoLoss, "`training_step` must return a loss for each batch, got None"),
        (SkipsBatches, "`training_step` must return a loss for each batch, got None"),
        (NoGraph, "`training_step` must return a loss with a graph, got one without"),
        (Frozen, r"`configure_optimizers` must give a positive learning rate, got \[0.0\]"),
    ],
)
def test_modules_without_a_loss_or_a_rate(module, message):
    with pytest.raises(ValueError, match=message):
        find_learning_rate(module(), toy_loaders()[0], trainer_options=OPTIONS)


def test_no_train_loader():
    with pytest.raises(Exception, match="train_dataloader"):
        find_learning_rate(ToyModule(), None, trainer_options=OPTIONS)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "must hold 1 to 5 rates, got 0"),
        ([0.1, 0.01], r"must grow, got \[0.1, 0.01\]"),
        ([0.0, 0.1], "must be positive and finite"),
        ([0.1, float("inf")], "must be positive and finite"),
        ([0.1] * 6, "must hold 1 to 5 rates, got 6"),
    ],
)
def test_bad_candidates(candidates, message):
    with pytest.raises(ValueError, match=f"`candidates` {message}"):
        find_learning_rate(ToyModule(), toy_loaders()[0], candidates=candidates)


class Detached(ToyModule):
    """The loss does not depend on the weights."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(0 * self(x) + 20 * torch.randn(len(x), 2), y)


@short_trials
def test_no_rate_lowers_the_loss():
    found = find_learning_rate(Detached(), toy_loaders()[0], trainer_options=OPTIONS)
    assert (found.verdict, found.rate, found.rates) == ("fail", None, None)
    assert "lowered the loss" in found.message
    assert [each.kind for each in found.findings] == ["wrong_initial_loss"]
    assert found.findings[0].advice in found.advice


class Negative(ToyModule):
    """A loss with the wrong sign, which has no lower bound."""

    def training_step(self, batch, batch_idx):
        return -super().training_step(batch, batch_idx)


@short_trials
def test_a_loss_with_the_wrong_sign():
    found = find_learning_rate(Negative(), toy_loaders()[0], candidates=[0.1], trainer_options=OPTIONS)
    assert (found.verdict, found.rate) == ("fail", None)
    assert "returns the negative of cross_entropy" in found.message


class Brittle(Quadratic):
    """Its own code does not bear weights that are not finite, as distributions do not."""

    def training_step(self, batch, batch_idx):
        if not self.weight.isfinite().all():
            raise ArithmeticError("weights are not finite")
        return super().training_step(batch, batch_idx)


@short_trials
def test_a_step_that_does_not_bear_broken_weights():
    module = Brittle()
    found = find_learning_rate(module, None, candidates=[0.03, 100.0], trainer_options=OPTIONS)
    assert not found.trials[-1].finite
    assert 0 < found.rate <= module.cliff() / 2


def test_an_error_of_the_module_is_raised():
    class Wrong(Quadratic):
        def training_step(self, batch, batch_idx):
            raise ArithmeticError("a fault of mine")

    with pytest.raises(ArithmeticError, match="a fault of mine"):
        find_learning_rate(Wrong(), None, trainer_options=OPTIONS)


@short_trials
def test_accumulated_gradients_do_not_change_the_losses():
    def search(batches):
        return find_learning_rate(
            Quadratic(), None, candidates=[0.1], trainer_options={**OPTIONS, "accumulate_grad_batches": batches}
        )

    one, two = search(1), search(2)
    assert two.trials[0].start == pytest.approx(one.trials[0].start, rel=0.2)
    assert len(two.curve) == 30


@short_trials
def test_the_picture(tmp_path):
    found = find_learning_rate(Quadratic(), None, candidates=[0.01, 0.1], trainer_options=OPTIONS)
    found.save_picture(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
