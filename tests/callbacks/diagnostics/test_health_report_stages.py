"""HealthReport in fits of all kinds: resumed, without validation or length, pickled, broken off, and beside others."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lightning_trainingkit import HealthReport
from lightning_trainingkit._lightning import L
from tests.toy import ToyModule, toy_data, toy_loaders, toy_trainer


def alarms(report):
    return [finding.kind for finding in report.findings if finding.level != "advice"]


def hooks(module):
    found = [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules()]
    return found, sum(len(each._backward_hooks or ()) for each in module.parameters())


class Still(ToyModule):
    """A training whose loss cannot fall, since the rate is nearly 0."""

    def __init__(self):
        super().__init__(lr=1e-12)


class Linear(ToyModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def test_a_resumed_training_need_not_fall(tmp_path):
    found = []
    for resumed in (False, True):
        torch.manual_seed(0)
        report = HealthReport(verbose=False)
        trainer = toy_trainer(report, max_epochs=30 * (1 + resumed))
        trainer.fit(Still(), *toy_loaders(), ckpt_path=tmp_path / "last.ckpt" if resumed else None)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        found.append((report.observation.resumed, alarms(report)))
    assert found[0][0] is False
    assert found[0][1] != []
    assert found[1] == (True, [])


def test_a_fit_that_goes_on_in_the_same_trainer_is_resumed():
    report = HealthReport(verbose=False)
    trainer, module = toy_trainer(report, max_epochs=30), Still()
    trainer.fit(module, *toy_loaders())
    assert alarms(report)
    trainer.fit_loop.max_epochs = 60
    trainer.fit(module, *toy_loaders())
    assert report.observation.resumed
    assert alarms(report) == []


def test_it_pickles_in_the_middle_of_a_fit_and_the_fit_goes_on():
    copies = []

    class Pickle(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            copies.append(pickle.loads(pickle.dumps(trainer.callbacks[1])))

    report = HealthReport(every_n_steps=2, verbose=False)
    toy_trainer(Pickle(), report).fit(ToyModule(), *toy_loaders())
    assert len(report.observation.looks) == 5
    assert len(copies[-1].observation.looks) == 5
    assert copies[-1].observation.losses.count == 7
    toy_trainer(copies[-1]).fit(ToyModule(), *toy_loaders())  # what it watched is not in the copy
    assert copies[-1].observation.losses.count == 8


HOOKS = [
    "on_sanity_check_start",
    "on_train_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_train_epoch_end",
    "on_train_end",
]


@pytest.mark.parametrize(("before", "error"), [(True, RuntimeError), (False, RuntimeError), (True, KeyboardInterrupt)])
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_come_off_after_an_error_in_any_hook(hook, before, error):
    class Raises(L.Callback):
        pass

    def stop(self, trainer, *args):
        if not trainer.sanity_checking or hook == "on_sanity_check_start":
            raise error("stop here")

    setattr(Raises, hook, stop)
    module, report = ToyModule(), HealthReport(every_n_steps=1, verbose=False)
    callbacks = [Raises(), report] if before else [report, Raises()]
    at_first = hooks(module)
    with pytest.raises((error, SystemExit)):
        toy_trainer(*callbacks).fit(module, *toy_loaders())
    assert hooks(module) == at_first
    module.train()
    toy_trainer(report, max_epochs=1).fit(module, *toy_loaders())
    assert report.observation.losses.count == 4


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_stage_alone_is_not_watched(stage, capsys):
    report, module = HealthReport(), ToyModule()
    getattr(toy_trainer(report), stage)(module, toy_loaders()[1])
    assert report.observation.losses.count == 0
    assert (report.findings, report.notes) == ([], [])
    assert "Health report" not in capsys.readouterr().out


def test_validate_after_a_fit_without_validation_changes_nothing():
    report, module = HealthReport(verbose=False), ToyModule()
    trainer = toy_trainer(report, max_epochs=1, limit_val_batches=0)
    trainer.fit(module, *toy_loaders())
    trainer.limit_val_batches = 1.0
    steps = []
    module.validation_step = lambda batch, batch_idx: steps.append(batch_idx)
    trainer.validate(module, toy_loaders()[1])
    assert steps == [0, 1]
    assert report.notes == []


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield from toy_data()


@pytest.mark.filterwarnings("ignore:.*IterableDataset.*")
@pytest.mark.parametrize("epochs", [-1, 5])
def test_loaders_without_a_length(epochs):
    report = HealthReport(every_n_steps=5, verbose=False)
    trainer = toy_trainer(report, max_epochs=epochs, max_steps=12, limit_val_batches=1, val_check_interval=6)
    trainer.fit(ToyModule(), DataLoader(Endless(), 8), DataLoader(Endless(), 8))
    assert report.observation.losses.count == trainer.global_step == 12
    assert report.observation.progress == 1.0
    assert alarms(report) == []


def test_a_training_without_a_planned_end_has_no_progress():
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step >= 9

    report = HealthReport(every_n_steps=4, verbose=False)
    toy_trainer(Stop(), report, max_epochs=-1).fit(ToyModule(), *toy_loaders())
    assert report.observation.losses.count >= 9
    assert report.observation.progress is None


def test_several_validation_loaders_and_optimizers_with_closures():
    class Several(ToyModule):
        def validation_step(self, batch, batch_idx, dataloader_idx):
            self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    report = HealthReport(verbose=False)
    toy_trainer(report).fit(Several(), toy_loaders()[0], [toy_loaders()[1], toy_loaders()[1]])
    assert report.observation.losses.count == 8
    assert report.notes == []
    assert alarms(report) == []


def test_a_loss_is_that_of_an_optimizer_step_where_gradients_accumulate():
    losses = {}
    for batch_size, accumulate in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        report = HealthReport(verbose=False)
        module = Linear()
        data = DataLoader(toy_data(), batch_size)
        toy_trainer(report, max_epochs=3, accumulate_grad_batches=accumulate, limit_val_batches=0).fit(
            module, data, data
        )
        losses[batch_size] = report.observation.losses.first
    assert len(losses[8]) == 12
    assert losses[8] == pytest.approx(losses[2], abs=1e-5)


def test_many_batches_in_a_step_are_one_step():
    report = HealthReport(verbose=False)
    trainer = toy_trainer(report, max_epochs=3, accumulate_grad_batches=100, limit_val_batches=0)
    trainer.fit(Linear(), DataLoader(toy_data(400), 1), toy_loaders()[1])
    assert report.observation.losses.count == trainer.global_step == 12


def test_more_losses_than_are_kept_on_the_device():
    report = HealthReport(every_n_steps=10_000, verbose=False)
    toy_trainer(report, max_epochs=80, limit_val_batches=0).fit(ToyModule(), *toy_loaders())
    assert report.observation.losses.count == 320


def test_layers_made_in_configure_model_are_looked_at():
    class Late(L.LightningModule):
        def configure_model(self):
            if not hasattr(self, "net"):
                self.net = ToyModule().net

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    report = HealthReport(verbose=False)
    module = Late()
    toy_trainer(report).fit(module, toy_loaders()[0])
    assert list(report.observation.looks[0].activations) == ["net.2"]
    assert report.notes == []
    assert not any(each._forward_hooks for each in module.modules())


def test_noise_on_purpose_in_validation_is_no_finding():
    class Diffusion(ToyModule):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", F.cross_entropy(self(batch[0] + torch.randn_like(batch[0])), batch[1]))

    report = HealthReport(verbose=False)
    toy_trainer(report, max_epochs=1).fit(Diffusion(), *toy_loaders())
    assert alarms(report) == []
    assert report.notes == []


class OwnStep(ToyModule):
    """Manual optimization that goes past Lightning's optimizer."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    def on_train_epoch_end(self):
        self.lr_schedulers().step()


def test_steps_of_the_plain_optimizer_are_seen():
    report = HealthReport(verbose=False)
    toy_trainer(report, max_epochs=3).fit(OwnStep(), *toy_loaders())
    assert report.observation.losses.count == 12
    look = report.observation.looks[-1]
    assert (look.step, look.gradients["net.5.weight"].steps) == (8, 1)
    assert look.gradients["net.5.weight"].update_norm > 0


@pytest.mark.filterwarnings("ignore:.*BackboneFinetuning.*", "ignore:.*parameters in the optimizer.*")
def test_layers_that_join_the_optimizer_later_are_no_finding():
    class Parts(ToyModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = self.net[:5], self.net[5]
            del self.net

        def forward(self, x):
            return self.head(self.backbone(x))

        def configure_optimizers(self):
            return torch.optim.SGD(self.head.parameters(), lr=0.1)

    report = HealthReport(every_n_steps=2, verbose=False)
    finetuning = L.callbacks.BackboneFinetuning(2, backbone_initial_lr=0.01, verbose=False)
    toy_trainer(finetuning, report, max_epochs=4).fit(Parts(), *toy_loaders())
    assert alarms(report) == []


def test_a_batch_that_is_an_object_is_not_changed_by_the_rehearsal():
    class Batch:
        def __init__(self, rows):
            self.x = torch.stack([x for x, _ in rows])
            self.y = torch.stack([y for _, y in rows])

    means = []

    class InPlace(ToyModule):
        def training_step(self, batch, batch_idx):
            batch.x += 1
            means.append(batch.x.mean().item())
            return F.cross_entropy(self(batch.x), batch.y)

        def validation_step(self, batch, batch_idx):
            pass

    report = HealthReport(verbose=False)
    data = DataLoader(toy_data(), 8, collate_fn=Batch)
    toy_trainer(report, max_epochs=1).fit(InPlace(), data, data)
    expected = [toy_data().tensors[0][number : number + 8].mean().item() + 1 for number in (0, 8, 16, 24)]
    assert means[-4:] == pytest.approx(expected, abs=1e-5)
    assert report.notes == []


def test_packed_sequences():
    class Sequences(ToyModule):
        def __init__(self):
            super().__init__()
            self.net = nn.GRU(4, 2)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0])[1][-1], batch[1])

        def validation_step(self, batch, batch_idx):
            pass

    def collate(rows):
        sequences = [x[0, : 1 + number % 4] for number, (x, _) in enumerate(rows)]
        return nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False), torch.stack([y for _, y in rows])

    report = HealthReport(verbose=False)
    data = DataLoader(toy_data(), 8, collate_fn=collate)
    toy_trainer(report, max_epochs=1).fit(Sequences(), data, data)
    assert report.observation.chance == pytest.approx(0.6931, abs=1e-4)
    assert [note for note in report.notes if "copy" in note] == []
