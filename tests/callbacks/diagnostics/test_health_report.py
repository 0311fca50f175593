import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import HealthReport
from lightning_trainingkit._lightning import L
from tests.toy import ToyModule, difference, toy_data, toy_loaders, toy_trainer


class Stack(L.LightningModule):
    """A stack of equal layers, and a head for two classes."""

    def __init__(self, activation=nn.Sigmoid, depth=12, lr=0.1, optimizer=torch.optim.SGD):
        super().__init__()
        layers = [nn.Flatten()]
        for _ in range(depth):
            layers += [nn.Linear(16, 16), activation()]
        self.net = nn.Sequential(*layers, nn.Linear(16, 2))
        self.lr, self.kind = lr, optimizer

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.kind(self.parameters(), lr=self.lr)


def fit(module, report=None, epochs=30, **options):
    torch.manual_seed(0)
    trainer = toy_trainer(*([report] if report else []), max_epochs=epochs, **options)
    trainer.fit(module, *toy_loaders()[: 1 if type(module).validation_step is L.LightningModule.validation_step else 2])
    return trainer


def kinds(report):
    return [finding.kind for finding in report.findings if finding.level != "advice"]


def test_a_stack_of_sigmoids_is_named_with_its_layer_and_its_cure(capsys):
    report = HealthReport()
    torch.manual_seed(0)
    fit(Stack(), report)
    finding = report.findings[0]
    assert (finding.kind, finding.level, finding.where) == ("vanishing_gradient", "harmful", "net.1")
    assert finding.value < 1e-5
    assert "ReLU" in finding.advice
    printed = " ".join(capsys.readouterr().out.split())
    assert "vanishing_gradient" in printed
    assert "net.1" in printed


def test_the_cure_makes_it_silent():
    from lightning_trainingkit import InitOverride

    torch.manual_seed(0)
    report, module = HealthReport(verbose=False), Stack(nn.ReLU, lr=0.03)
    torch.manual_seed(0)
    trainer = toy_trainer(InitOverride("kaiming_normal", verbose=False), report, max_epochs=30)
    trainer.fit(module, toy_loaders()[0])
    assert kinds(report) == []


def test_the_fit_has_the_same_bits_with_and_without():
    weights = []
    for report in (None, HealthReport(every_n_steps=3, verbose=False)):
        torch.manual_seed(0)
        module = ToyModule()
        fit(module, report, epochs=3)
        weights.append({name: value.clone() for name, value in module.state_dict().items()} | {"draw": torch.rand(1)})
    assert difference(*weights) == 0


def test_the_module_is_left_as_it_was():
    module, report = ToyModule(), HealthReport(verbose=False)
    before = set(vars(module)), [len(layer._forward_hooks) for layer in module.modules()]
    fit(module, report, epochs=1)
    assert [len(layer._forward_hooks) for layer in module.modules()] == before[1]
    assert not any(each._post_accumulate_grad_hooks for each in module.parameters())
    pickle.loads(pickle.dumps(report))


def test_hooks_come_off_when_the_step_raises():
    class Raises(ToyModule):
        def training_step(self, batch, batch_idx):
            if self.global_step == 2:
                raise RuntimeError("stop here")
            return super().training_step(batch, batch_idx)

    module = Raises()
    with pytest.raises(RuntimeError, match="stop here"):
        fit(module, HealthReport(verbose=False))
    assert not any(layer._forward_hooks for layer in module.modules())


def test_stop_ends_a_fit_whose_loss_is_not_finite():
    report = HealthReport(every_n_steps=5, stop=True, verbose=False)
    trainer = fit(Stack(nn.ReLU, 2, lr=1e20), report)
    assert trainer.global_step <= 10
    assert "non_finite" in kinds(report)
    assert kinds(report)[0] in ("learning_rate_too_high", "non_finite")


def test_a_second_fit_begins_without_findings():
    report = HealthReport(verbose=False)
    fit(Stack(nn.ReLU, 2, lr=1e20), report, epochs=2)
    assert kinds(report)
    fit(ToyModule(), report, epochs=2)
    assert kinds(report) == []


class Manual(ToyModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.manual_backward(loss)
        optimizer.step()

    def on_train_epoch_end(self):
        self.lr_schedulers().step()


def test_manual_optimization_without_a_returned_loss_is_observed():
    report = HealthReport(verbose=False)
    fit(Manual(), report, epochs=30)
    assert report.observation.losses.count == 30 * 4
    assert report.observation.chance == pytest.approx(0.6931, abs=1e-4)
    assert kinds(report) == []


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
def test_a_step_without_a_loss_is_no_trouble():
    class NoLoss(ToyModule):
        def training_step(self, batch, batch_idx):
            return None

    report = HealthReport(verbose=False)
    fit(NoLoss(), report, epochs=2)
    assert report.observation.losses.count == 0
    assert "No loss was seen" in report.notes[-1]
    assert set(kinds(report)) <= {"parameters_not_trained"}


def test_two_optimizers_and_no_known_layer_are_no_trouble():
    class Two(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.one, self.other = nn.Parameter(torch.zeros(16)), nn.Parameter(torch.zeros(16))

        def training_step(self, batch, batch_idx):
            for optimizer, weight in zip(self.optimizers(), (self.one, self.other), strict=True):
                optimizer.zero_grad()
                self.manual_backward((batch[0].flatten(1) @ weight - batch[1]).square().mean())
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD([self.one], lr=0.01), torch.optim.SGD([self.other], lr=0.01)]

    report = HealthReport(verbose=False)
    fit(Two(), report)
    assert kinds(report) == []
    assert "No layer was looked at" in report.notes[0]


def test_a_module_that_cannot_be_copied_is_trained_and_named():
    class Locked(ToyModule):
        def __init__(self):
            super().__init__()
            self.generator = (number for number in range(10**9))  # cannot be copied

    report = HealthReport(verbose=False)
    fit(Locked(), report, epochs=2)
    assert any("could not run on a copy" in note for note in report.notes)
    assert kinds(report) == []


class LeakyClassifier(ToyModule):
    def forward(self, x):
        return self.net(x).softmax(0)


class Probabilities(ToyModule):
    def forward(self, x):
        return self.net(x).softmax(1)


class Negative(ToyModule):
    def training_step(self, batch, batch_idx):
        return -super().training_step(batch, batch_idx)


class FunctionalDropout(ToyModule):
    def forward(self, x):
        return self.net[5](F.dropout(self.net[:4](x), 0.5))


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (LeakyClassifier, "batch_leaks"),
        (Probabilities, "softmax_before_loss"),
        (Negative, "wrong_loss_sign"),
        (FunctionalDropout, "evaluation_in_training_mode"),
    ],
)
def test_what_the_first_batches_show(module, kind):
    report = HealthReport(verbose=False)
    fit(module(), report, epochs=1)
    assert kind in kinds(report)


def test_uncentred_input_is_advice_alone():
    x = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
    data = TensorDataset(x, toy_data().tensors[1])
    report = HealthReport(verbose=False)
    toy_trainer(report, max_epochs=1).fit(ToyModule(), DataLoader(data, 8), DataLoader(data, 8))
    assert {finding.kind for finding in report.findings if finding.level == "advice"} == {"input_not_centred"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"every_n_steps": 0}, ValueError), ({"every_n_steps": 2.5}, TypeError), ({"stop": "yes"}, TypeError)],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error, match=f"`{next(iter(arguments))}` must be"):
        HealthReport(**arguments)


def test_two_in_a_trainer_are_refused():
    with pytest.raises(ValueError, match="one HealthReport"):
        toy_trainer(HealthReport(), HealthReport()).fit(ToyModule(), *toy_loaders())


def test_trouble_in_a_long_first_epoch_is_printed_at_once(capsys):
    class Breaks(ToyModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("nan") if batch_idx >= 20 else loss

    data = DataLoader(toy_data(256), 8)
    toy_trainer(HealthReport(every_n_steps=10), max_epochs=1, limit_val_batches=0).fit(Breaks(), data, data)
    printed = capsys.readouterr().out
    assert printed.index("at step 21") < printed.index("after epoch 1")
