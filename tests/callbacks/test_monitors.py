"""What callbacks that follow a metric have in common: its mode, what they say, and the error if it is missing."""

import logging
import sys

import pytest
import torch

from lightning_trainingkit import BestCheckpoint, CommandCenter, EarlyStopping, TransferLearning
from tests.toy import ScriptedModule, difference, toy_loaders, toy_trainer


def early_stopping(monitor, mode=None):
    return EarlyStopping(monitor, mode=mode, patience=9)


def best_checkpoint(monitor, mode=None):
    return BestCheckpoint(monitor, mode, restore=True)


def transfer_learning(monitor, mode=None):
    phases = [{"train": "all"}, {"train": "all", "start": 3}]
    return TransferLearning(phases, restore_best=True, monitor=monitor, mode=mode, verbose=False)


every_callback = pytest.mark.parametrize("new", [early_stopping, best_checkpoint, transfer_learning])


@pytest.fixture
def said(caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        yield lambda: [message for message in caplog.messages if "mode=" in message]


class Named(ScriptedModule):
    """Logs its values under a name of its own; in the sanity check under another one, or not at all."""

    name, sanity_name = "val/loss", "val/loss"

    def on_validation_epoch_end(self):
        name = self.sanity_name if self.trainer.sanity_checking else self.name
        if name:
            self.log(name, float(self.values[min(self.current_epoch, len(self.values) - 1)]))


class TwoLoaders(ScriptedModule):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/acc", 0.5)

    def on_validation_epoch_end(self):
        pass


def fit(module, callback, loaders=1, **options):
    train, validation = toy_loaders()
    trainer = toy_trainer(callback, **{"max_epochs": 4} | options)
    trainer.fit(module, train, [validation] * loaders if loaders > 1 else validation)


@every_callback
def test_a_score_without_a_mode_is_refused_and_a_loss_is_not(new):
    for monitor in ("val/acc", "valid_accuracy", "valF1", "val/loss_acc", "mIoU"):
        with pytest.raises(ValueError, match=f"`mode` must be given for '{monitor}', which by its name is a score"):
            new(monitor)
    for monitor in ("val/loss", "val_loss", "dice_loss", "val/width"):
        assert new(monitor).mode == "min"
    assert new("val/acc", "max").mode == "max"


@every_callback
@pytest.mark.parametrize(("name", "mode", "taken", "best"), [("val/acc", "max", "max", 1), ("val/x", None, "min", 2)])
def test_which_epoch_was_restored_and_by_which_mode_is_said(new, name, mode, taken, best, said):
    module = Named([2, 4, 1, 3])
    module.name = module.sanity_name = name
    fit(module, new(name, mode))
    (message,) = said()
    assert f": restored the weights of epoch {best}, the best by {name} (mode='{taken}')" in message
    if new is not transfer_learning:  # goes on from there
        assert difference(module.state_dict(), module.seen[best]) == 0


def test_which_epoch_is_the_best_is_said_where_nothing_is_restored(said):
    fit(ScriptedModule([2, 4, 1, 3]), BestCheckpoint("val/loss"))
    assert "BestCheckpoint: kept the weights of epoch 2, the best by val/loss (mode='min')" in said()[0]


@pytest.mark.parametrize("new", [early_stopping, transfer_learning])  # BestCheckpoint raises then
def test_that_no_epoch_was_the_best_is_said(new, said):
    fit(ScriptedModule([float("nan")]), new("val/loss"), max_epochs=4)
    assert any("restored no weights, since no epoch was the best by val/loss" in message for message in said())


@every_callback
def test_a_mode_that_contradicts_the_name_is_taken_and_said_so(new, said):
    assert new("val/acc", "min").mode == "min"
    assert new("val/loss", "max").mode == "max"
    assert new("val/width", "max").mode == "max"
    first, second = said()
    CommandCenter(best={"val/acc": "max", "val/loss": "max"})
    assert len(said()) == 3
    assert "follows val/acc by mode='min' as told, although the name sounds like 'max'" in first
    assert "follows val/loss by mode='max' as told, although the name sounds like 'min'" in second


@every_callback
@pytest.mark.parametrize(
    ("module", "loaders", "monitor", "listed"),
    [
        (ScriptedModule, 1, "val/lost", "val/loss"),
        (ScriptedModule, 1, "loss/val", "val/loss"),
        (TwoLoaders, 2, "val/acc", "val/acc/dataloader_idx_0.*val/acc/dataloader_idx_1"),
        (TwoLoaders, 2, "val/acc/dataloader_idx_2", "val/acc/dataloader_idx_0.*val/acc/dataloader_idx_1"),
    ],
)
def test_a_missing_metric_is_an_error_after_the_sanity_check_that_lists_the_logged_ones(
    new, module, loaders, monitor, listed
):
    module = module([1])
    with pytest.raises((RuntimeError, ValueError), match=f"{monitor}.*{listed}.*num_sanity_val_steps=0"):
        fit(module, new(monitor, "max"), loaders)
    assert module.global_step == 0


@every_callback
@pytest.mark.parametrize("index", [0, 1])
def test_a_metric_of_one_of_two_loaders_is_followed(new, index, said):
    fit(TwoLoaders([1]), new(f"val/acc/dataloader_idx_{index}", "max"), 2)
    assert "restored the weights of epoch 0" in said()[0]


@every_callback
@pytest.mark.parametrize("sanity_name", ["sanity_val/loss", "loss"])
def test_a_metric_of_another_name_in_the_sanity_check_is_waited_for(new, sanity_name, said):
    module = Named([2, 4, 1, 3])
    module.sanity_name = sanity_name
    fit(module, new("val/loss"))
    assert "restored the weights of epoch 2" in said()[0]


@every_callback
def test_a_metric_that_the_first_epoch_does_not_log_either_is_an_error_then(new):
    module = Named([1])
    module.name = module.sanity_name = "sanity_val/loss"
    with pytest.raises((RuntimeError, ValueError), match="val/loss"):
        fit(module, new("val/loss"))
    assert module.global_step == 4


@pytest.mark.parametrize("new", [early_stopping, transfer_learning])
def test_a_metric_of_training_is_waited_for(new, said):
    class OfTraining(ScriptedModule):
        def training_step(self, batch, batch_idx):
            self.log("train/acc", 1.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    fit(OfTraining([1]), new("train/acc", "max"))
    assert "restored the weights of epoch 0" in said()[0]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("at_train_epoch_end", [False, True])
def test_an_epoch_that_a_resumed_run_ends_without_a_batch_is_explained(tmp_path, at_train_epoch_end):
    class Collects(ScriptedModule):
        losses = ()

        def on_train_epoch_start(self):
            self.losses = []

        def training_step(self, batch, batch_idx):
            self.losses.append(loss := super().training_step(batch, batch_idx))
            return loss

        def on_train_epoch_end(self):
            torch.stack(list(self.losses))

    def train(max_epochs, **options):
        save = BestCheckpoint("val/loss", dirpath=str(tmp_path), save_on_train_epoch_end=at_train_epoch_end)
        toy_trainer(save, max_epochs=max_epochs).fit(Collects([3, 2, 1]), *toy_loaders(), **options)
        return save.best_model_path

    best = train(2)
    if at_train_epoch_end:
        train(3, ckpt_path=best)
        return
    with pytest.raises(RuntimeError) as caught:
        train(3, ckpt_path=best)
    if sys.version_info >= (3, 11):
        (note,) = caught.value.__notes__
        assert "without a batch" in note
        assert "save_on_train_epoch_end=True" in note
