"""Schedules that nobody steps, and schedules that stand still on purpose."""

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from lightning_trainingkit._lightning import L
from tests.callbacks.diagnostics.checked_fit import ManualNet, Net, fit, kinds

# Lightning warns of a OneCycleLR alone.
pytestmark = pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using")


class Scheduled(Net):
    """Automatic optimization with a schedule, and entries of its dict."""

    def __init__(self, schedule, **entries):
        super().__init__()
        self.schedule, self.entries = schedule, entries

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), **self.entries}}


class ManualScheduled(ManualNet):
    """Manual optimization that steps its schedule after an epoch, a batch or never."""

    def __init__(self, when):
        super().__init__()
        self.when = when

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        if self.when == "batch":
            self.lr_schedulers().step()

    def on_train_epoch_end(self):
        if self.when == "epoch":
            self.lr_schedulers().step()

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [MultiStepLR(optimizer, [1000])]


class Forgotten(Net):
    """The schedule is built and not returned."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        StepLR(optimizer, 1)
        return optimizer


class Kept(Net):
    """The module keeps the schedule, and steps it after each epoch or never."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        warm_up = LinearLR(optimizer, total_iters=1)
        self.schedule = [SequentialLR(optimizer, [warm_up, MultiStepLR(optimizer, [1000])], [1])]
        return optimizer

    def on_train_epoch_end(self):
        if self.steps:
            self.schedule[0].step()


class Overridden(Scheduled):
    def lr_scheduler_step(self, scheduler, metric):
        pass


def one_cycle(optimizer):
    return OneCycleLR(optimizer, max_lr=0.1, total_steps=240)


@pytest.mark.parametrize(
    ("module", "where", "words"),
    [
        (lambda: ManualScheduled("never"), "MultiStepLR", "self.lr_schedulers().step()"),
        (Forgotten, "SGD", '"lr_scheduler": schedule'),
        (lambda: Kept(False), "SequentialLR", '"lr_scheduler": schedule'),
        (lambda: Overridden(lambda o: StepLR(o, 1)), "StepLR", "scheduler.step()"),
        # An epoch has 8 batches, and Lightning counts them from 1 in each epoch.
        (lambda: Scheduled(lambda o: StepLR(o, 1), interval="step", frequency=12), "StepLR", "scheduler.step()"),
        (lambda: Scheduled(lambda o: LambdaLR(o, float), interval="step", frequency=9), "LambdaLR", "scheduler"),
        (lambda: Scheduled(one_cycle), "OneCycleLR", '"interval": "step"'),
        (lambda: Scheduled(lambda o: CosineAnnealingLR(o, 240)), "CosineAnnealingLR", '"interval": "step"'),
    ],
)
def test_found(module, where, words):
    (finding,) = fit(module(), epochs=20 if "One" in where or "Cosine" in where else 3).final
    assert (finding.kind, finding.where) == ("scheduler_not_stepping", where)
    assert words in finding.advice


def test_a_schedule_with_a_length_in_steps_is_found_in_the_first_epoch():
    checked = fit(Scheduled(one_cycle), epochs=20)
    assert "stepped once an epoch" in checked.early[0].message
    assert checked.early[0].value == pytest.approx(20 / 240)


@pytest.mark.parametrize(
    "module",
    [
        lambda: ManualScheduled("batch"),
        lambda: ManualScheduled("epoch"),
        lambda: Kept(True),
        lambda: Scheduled(lambda o: ReduceLROnPlateau(o, patience=100), monitor="val/loss"),
        lambda: Scheduled(lambda o: StepLR(o, 30)),
        lambda: Scheduled(lambda o: StepLR(o, 1), frequency=100),
        lambda: Scheduled(lambda o: MultiStepLR(o, [100]), interval="step"),
        lambda: Scheduled(lambda o: OneCycleLR(o, 0.1, total_steps=24), interval="step"),
        lambda: Scheduled(lambda o: OneCycleLR(o, 0.1, total_steps=3)),
        lambda: Scheduled(lambda o: CosineAnnealingLR(o, 100)),
        lambda: Scheduled(lambda o: LinearLR(o, 0.001, total_iters=10), interval="step"),
        lambda: Scheduled(lambda o: LambdaLR(o, lambda step: min(1, step / 4)), interval="step"),
    ],
)
def test_no_finding(module):
    assert kinds(module()) == []


def test_no_finding_with_accumulation():
    module = Scheduled(lambda optimizer: StepLR(optimizer, 100), interval="step")
    assert kinds(module, accumulate_grad_batches=4) == []


def test_the_number_of_steps_may_end_a_fit():
    (finding,) = fit(Scheduled(one_cycle), epochs=-1, max_steps=24).final
    assert finding.value == pytest.approx(3 / 240)


def test_no_finding_in_a_fit_without_an_end():
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 3

    assert kinds(Scheduled(one_cycle), epochs=-1, callbacks=[Stop()]) == []


def test_a_resumed_optimizer_has_no_schedule(tmp_path):
    """The key `initial_lr` comes with the checkpoint of a training that had one."""

    class Resumed(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            optimizer.param_groups[0]["initial_lr"] = 0.1
            return optimizer

    assert kinds(Resumed()) == []


def test_a_schedule_of_another_package():
    class Other:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    class Custom(Scheduled):
        def lr_scheduler_step(self, scheduler, metric):
            torch.ones(1)

    assert kinds(Custom(Other)) == []
