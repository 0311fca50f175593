"""Parameters that require a gradient and are not trained, and those that are frozen or changed on purpose."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_trainingkit import TransferLearning
from lightning_trainingkit._lightning import L
from tests.callbacks.diagnostics.checked_fit import ManualNet, Net, fit, kinds


class OldHead(Net):
    """The optimizer was built before the head was replaced."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        self.head = nn.Linear(8, 2)
        return optimizer


class Detached(Net):
    def forward(self, x):
        return self.head(self.middle(self.body(x)).detach())


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.extra = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(3, 3)])


class ZeroFactor(Net):
    def forward(self, x):
        return self.head(0 * self.middle(self.body(x)))


class IdleStep(Net):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer_closure()


pytestmark = pytest.mark.filterwarnings("ignore:Found . module.s. in eval mode at the start")


def the_finding(module, **options):
    checked = fit(module, **options)
    (finding,) = checked.final
    assert finding.kind == "parameters_not_trained"
    return finding


@pytest.mark.parametrize(
    ("module", "where", "words"),
    [
        (OldHead, "head", "no optimizer"),
        (Detached, "body, middle", "got no gradient in 24 batches"),
        (Unused, "extra", "6 of 14 trainable parameters got no gradient"),
        (ZeroFactor, "body, middle", "exactly zero in 24 batches"),
        (IdleStep, "body, middle, head", "made no step in 24 batches"),
        (lambda: ManualNet("zero", "backward"), "body, middle, head", "made no step"),
        (lambda: ManualNet("backward", "zero", "step"), "body, middle, head", "None or zero in each step"),
        (lambda: ManualNet("backward", "keep zeros", "step"), "body, middle, head", "None or zero in each step"),
    ],
)
def test_names_the_layers_and_the_reason(module, where, words):
    finding = the_finding(module())
    assert finding.where == where
    assert words in finding.message


def test_advice_names_the_layer():
    assert 'self.get_submodule("head")' in the_finding(OldHead()).advice


def test_parameters_outside_of_the_optimizer_are_found_in_the_first_epoch():
    assert {finding.where for finding in fit(OldHead(), epochs=1).early} == {"head"}


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.body.requires_grad_(False)


class ZeroHead(Net):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class Teacher(Net):
    """A teacher in eval mode, which runs without gradients and requires them."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            target = self.teacher(batch[0]).softmax(1)
        return self.loss(batch) + cross_entropy(self(batch[0]), target)

    def configure_optimizers(self):
        return torch.optim.AdamW([*self.body.parameters(), *self.middle.parameters(), *self.head.parameters()])


class PerceptualLoss(Teacher):
    """Gradients flow through a fixed net in eval mode, whose parameters require them, to the trained one."""

    def training_step(self, batch, batch_idx):
        return self.loss(batch) + self.teacher(self.middle[0].weight).square().mean()


class MomentumCopy(Net):
    """A copy that is moved by hand, whose parameters require gradients."""

    def __init__(self):
        super().__init__()
        self.target = copy.deepcopy(self.middle)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        with torch.no_grad():
            for mine, theirs in zip(self.target.parameters(), self.middle.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)


class WarmUp(Net):
    """A rate of 0 in the first epoch."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(epoch, 1))]


class TinyRate(Net):
    """Updates too small for float32: another kind of finding."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-30)


class TwoOptimizers(Net):
    """A GAN's loop: the second optimizer moves each fifth batch, and each loss leaves gradients in the other part."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        chosen = second if self.trainer.global_step % 6 == 5 else first
        self.toggle_optimizer(chosen)
        chosen.zero_grad()
        self.manual_backward(self.loss(batch))
        chosen.step()
        self.untoggle_optimizer(chosen)

    def configure_optimizers(self):
        head = torch.optim.Adam(self.head.parameters())
        return torch.optim.SGD([*self.body.parameters(), *self.middle.parameters()], lr=0.1), head


class EpochAbout(TwoOptimizers):
    """The first epoch trains one part alone, and the gradients that reach the other are thrown away."""

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()[self.current_epoch % 2]
        for each in self.optimizers():
            each.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


class Critic(Net):
    """The loss does not depend on the last bias, whose gradient is exactly zero."""

    def loss(self, batch):
        scores = self(batch[0])
        return scores[:2].mean() - scores[2:].mean()


class RandomDepth(Net):
    """Blocks that most training steps skip."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = self.middle(self.body(x))
        for block in self.blocks:
            if not self.training or torch.rand(()) > 0.7:
                x = x + block(x)
        return self.head(x)


class NoOptimizer(Net):
    def training_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return None


@pytest.mark.parametrize(
    "module",
    [
        Net,
        ManualNet,
        Frozen,
        ZeroHead,
        Teacher,
        PerceptualLoss,
        MomentumCopy,
        WarmUp,
        TinyRate,
        TwoOptimizers,
        EpochAbout,
        Critic,
        RandomDepth,
    ],
)
def test_no_finding(module):
    assert kinds(module()) == []


@pytest.mark.filterwarnings("ignore:.*returned .None")
def test_no_finding_without_an_optimizer():
    assert kinds(NoOptimizer()) == []


@pytest.mark.parametrize("accumulate", [3, 100])
def test_no_finding_with_accumulation(accumulate):
    assert kinds(Net(), accumulate_grad_batches=accumulate) == []


def test_no_finding_in_phases_that_unfreeze_later():
    phases = [{"train": "head"}, {"train": "all", "start": 2}]
    assert kinds(Net(), callbacks=[TransferLearning(phases, verbose=False)]) == []


def test_a_rare_part_is_trained():
    class Rare(Net):
        """A part that one batch in eleven uses, which no looked batch may meet."""

        def __init__(self):
            super().__init__()
            self.rare = nn.Linear(2, 2)

        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.seen = getattr(self, "seen", 0) + 1
            return cross_entropy(self.rare(logits) if self.seen % 11 == 7 else logits, batch[1])

    assert kinds(Rare(), epochs=4) == []


def test_nothing_is_left_on_the_module():
    module = Net()
    optimizer = module.configure_optimizers()
    module.configure_optimizers = lambda: optimizer
    fit(module)
    assert not any(each._forward_pre_hooks for each in module.modules())
    assert not any(each._post_accumulate_grad_hooks or each._backward_hooks for each in module.parameters())
    assert not optimizer._optimizer_step_post_hooks


def test_a_second_fit_begins_again():
    class Stopping(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            raise KeyError

    module = Detached()
    with pytest.raises(KeyError):
        fit(module, callbacks=[Stopping()])
    assert [finding.where for finding in fit(module).final] == ["body, middle"]
