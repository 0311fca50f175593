import copy
import pickle

import lightning as L
import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from lightning_trainingkit import BestCheckpoint, EarlyStopping, load_best
from lightning_trainingkit.nn.weights.checkpoint import load_weights
from tests.toy import ScriptedModule, ToyModule, difference, toy_loaders, toy_trainer

same_folder = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # on purpose


def fit(values, callback, *others, max_epochs=12, **options):
    module = ScriptedModule(values)
    trainer = toy_trainer(callback, *others, max_epochs=max_epochs, **options)
    trainer.fit(module, *toy_loaders())
    return module, trainer


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    ("values", "patience", "min_delta"),
    [
        ([6, 5, 5, 5, 5, 5], 3, 0.0),
        ([6, 5, 4, 4, 3, 3], 1, 0.0),
        ([6, 5, 6, 5, 5, 5], 3, 0.0),
        ([1.0, 0.95, 0.9, 0.86, 0.7, 0.7], 2, 0.1),
    ],
)
def test_stops_where_lightning_does(values, patience, min_delta, ours):
    stopping = EarlyStopping("val/loss", min_delta, patience)
    peer = L.pytorch.callbacks.EarlyStopping("val/loss", min_delta, patience, check_on_train_epoch_end=False)
    _, trainer = fit(values, stopping)
    _, peer_trainer = fit(values, peer)
    assert trainer.current_epoch == peer_trainer.current_epoch
    assert stopping.wait_count == peer.wait_count


@pytest.mark.parametrize("beside", ["nothing", "best_checkpoint", "model_checkpoint"])
@pytest.mark.parametrize("max_epochs", [12, 4])
def test_planted_collapse_the_best_weights_come_back(tmp_path, beside, max_epochs):
    others = {
        "nothing": [],
        "best_checkpoint": [BestCheckpoint("val/loss", "min", dirpath=str(tmp_path / "best"))],
        "model_checkpoint": [ModelCheckpoint(tmp_path / "best", monitor="val/loss")],
    }[beside]
    module, trainer = fit([3, 2, 9, 9, 9, 9, 9], EarlyStopping("val/loss", patience=3), *others, max_epochs=max_epochs)
    assert trainer.current_epoch == min(5, max_epochs)
    assert difference(module.state_dict(), module.seen[1]) == 0
    assert difference(module.state_dict(), module.seen[-1]) > 0
    (file,) = (tmp_path / "checkpoints").iterdir()  # its own, whatever stands beside
    assert file.name.startswith("EarlyStopping-val_loss-epoch=1-step=8-")
    assert difference(module.state_dict(), load_weights(file)) == 0


def test_restore_can_be_left_out_and_then_no_file_is_written(tmp_path):
    module, _ = fit([3, 2, 9, 9, 9, 9], EarlyStopping("val/loss", restore_best=False))
    assert difference(module.state_dict(), module.seen[-1]) == 0
    assert not (tmp_path / "checkpoints").exists()


def test_the_averaged_weights_come_back_whatever_the_order_of_callbacks():
    for order in (1, -1):
        ema = EMAWeightAveraging(decay=0.5)
        callbacks = [EarlyStopping("val/loss", patience=2), ema][::order]
        module, _ = fit([3, 2, 9, 9, 9], *callbacks)
        assert difference(module.state_dict(), module.seen[1]) == 0  # validation saw the averaged weights


@same_folder
@pytest.mark.parametrize("killed_after", [2, 3, 4])
def test_a_resumed_run_stops_and_restores_like_an_unbroken_one(tmp_path, killed_after):
    def run(folder, epochs, ckpt_path=None):
        L.seed_everything(0, verbose=False)
        stopping = EarlyStopping("val/loss", patience=3, smoothing=0.5)
        module = ScriptedModule([3, 2, 9, 4, 3, 3, 3, 3, 3])
        save = ModelCheckpoint(tmp_path / folder, save_top_k=-1, save_on_train_epoch_end=False, monitor="val/acc")
        trainer = toy_trainer(stopping, save, max_epochs=epochs, default_root_dir=tmp_path / folder)
        trainer.fit(module, *toy_loaders(), ckpt_path=ckpt_path)
        return trainer, stopping, module

    unbroken, stopping, _ = run("unbroken", 12)
    run("killed", killed_after)
    newest = max((tmp_path / "killed").glob("epoch*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    resumed, stopping_too, module_too = run("killed", 12, newest)
    assert resumed.current_epoch == unbroken.current_epoch < 12
    assert stopping_too.wait_count == stopping.wait_count
    assert stopping_too.best_score == stopping.best_score == 2
    weights = load_weights(stopping_too.state_dict()["best_file"])
    assert difference(module_too.state_dict(), weights) == 0


def test_it_loads_the_state_of_lightnings_own_class():
    peer = L.pytorch.callbacks.EarlyStopping("val/loss")
    _, trainer = fit([3, 2, 9, 9], peer, max_epochs=4)
    trainer.save_checkpoint("peer.ckpt")
    stopping = EarlyStopping("val/loss")
    stopping.load_state_dict(copy.deepcopy(peer.state_dict()))
    assert stopping.state_key == peer.state_key
    assert (stopping.wait_count, stopping.best_score) == (peer.wait_count, peer.best_score) == (2, 2)
    toy_trainer(stopping, max_epochs=6).fit(ScriptedModule([9, 9, 9, 9, 1.5]), *toy_loaders(), ckpt_path="peer.ckpt")
    assert (stopping.wait_count, stopping.best_score) == (1, 1.5)


def test_min_epochs_forgets_a_stop_that_a_later_improvement_made_needless():  # Lightning #19966
    values = [5, 6, 6, 4, 3, 2, 1, 0.5, 0.4, 0.3]
    _, trainer = fit(values, EarlyStopping("val/loss", patience=2), min_epochs=5, max_epochs=10)
    assert trainer.current_epoch == 10
    stopping = EarlyStopping("val/loss", patience=2)
    _, trainer = fit([5, 6, 6, 6, 6, 6, 6, 6], stopping, min_epochs=5)
    assert trainer.current_epoch == 5
    assert stopping.stopped_epoch == 4


def test_each_fit_counts_anew():
    stopping = EarlyStopping("val/loss", patience=2)
    for _ in range(2):
        _, trainer = fit([3, 2, 9, 9, 9, 9], stopping)
        assert trainer.current_epoch == 4
        assert stopping.best_score == 2


@same_folder
def test_a_second_fit_does_not_restore_the_first_ones_best(tmp_path):
    stopping, save = EarlyStopping("val/loss", patience=2), ModelCheckpoint(tmp_path, monitor="val/loss")
    fit([3, 1, 9, 9, 9], stopping, save)
    module, _ = fit([3, 2, 9, 9, 9], stopping, save)
    assert difference(module.state_dict(), module.seen[1]) == 0


@pytest.mark.filterwarnings("ignore:EarlyStopping. val/loss does not count until the average")
def test_no_check_counts_before_an_average_of_weights_has_begun():
    ema = EMAWeightAveraging(decay=0.5, update_starting_at_step=8)  # in epoch 2
    stopping = EarlyStopping("val/loss", patience=2)
    module, trainer = fit([1, 2, 9, 4, 9, 9, 9], stopping, ema)
    assert trainer.current_epoch == 6
    assert stopping.best_score == 4
    assert difference(module.state_dict(), module.seen[3]) == 0  # what validation saw: the average


def test_start_from_epoch_waits_but_tracks_the_best_weights():
    module, trainer = fit([1, 9, 9, 9, 5, 6, 6, 6, 6], EarlyStopping("val/loss", patience=2, start_from_epoch=4))
    assert trainer.current_epoch == 7
    assert difference(module.state_dict(), module.seen[0]) == 0


def test_smoothing_judges_the_average_and_restores_the_best_raw_value():
    noisy = [10, 9, 4, 9, 8, 8.5, 7, 7.5, 6, 6.5, 5, 5.5]
    _, raw = fit(noisy, EarlyStopping("val/loss", patience=3))
    module, smoothed = fit(noisy, EarlyStopping("val/loss", patience=3, smoothing=0.8))
    assert raw.current_epoch == 6
    assert smoothed.current_epoch > 6
    assert difference(module.state_dict(), module.seen[2]) == 0


def test_divergence_message_reads_the_right_way_round():
    stopping = EarlyStopping("val/loss", divergence_threshold=5.0)
    fit([3, 10], stopping)
    assert stopping.stopping_reason is EarlyStoppingReason.DIVERGENCE_THRESHOLD
    assert "val/loss = 10.0 is worse than 5.0" in stopping.stopping_reason_message


def test_nan_stops_says_so_and_the_best_weights_come_back():
    stopping = EarlyStopping("val/loss", start_from_epoch=8)
    module, trainer = fit([3, 2, float("nan"), 1], stopping)
    assert trainer.current_epoch == 3
    assert "not finite" in stopping.stopping_reason_message
    assert difference(module.state_dict(), module.seen[1]) == 0


def test_a_training_metric_is_judged_at_the_end_of_the_training_epoch():
    module = ToyModule()
    stopping = EarlyStopping("train/loss", patience=1, min_delta=100.0)
    trainer = toy_trainer(stopping, max_epochs=5)
    trainer.fit(module, *toy_loaders())
    assert trainer.current_epoch == 2


def test_an_unknown_metric_is_an_error_that_lists_the_logged_ones():
    stopping = EarlyStopping("val/accuracy", mode="max")
    with pytest.raises(RuntimeError, match=r"val/accuracy.*not available.*val/loss"):
        fit([1], stopping, num_sanity_val_steps=0)
    module = ScriptedModule([1])
    with pytest.raises(
        RuntimeError, match=r"`monitor` must be a logged metric, got 'val/accuracy'. .*: val/acc, val/l"
    ):
        toy_trainer(stopping).fit(module, *toy_loaders())
    assert module.global_step == 0  # known after the sanity check
    fit([1], EarlyStopping("val/accuracy", mode="max", strict=False), max_epochs=1)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *(("smoothing", 1.0, ValueError), ("smoothing", -0.1, ValueError), ("smoothing", "0.5", TypeError)),
        *(("patience", -1, ValueError), ("patience", "5", TypeError), ("patience", 2.5, TypeError)),
        *(("min_delta", -0.1, ValueError), ("min_delta", "0.1", TypeError), ("min_delta", float("nan"), ValueError)),
        *(("stopping_threshold", "0.9", TypeError), ("divergence_threshold", float("nan"), ValueError)),
        *(("start_from_epoch", -1, ValueError), ("start_from_epoch", "1", TypeError)),
    ],
)
def test_bad_arguments(name, value, error):
    with pytest.raises(error, match=f"`{name}` must"):
        EarlyStopping("val/loss", **{name: value})


def test_wrong_mode():
    with pytest.raises(Exception, match="`mode` can be min, max, got best"):
        EarlyStopping("val/loss", mode="best")


def test_fast_dev_run_saves_and_restores_nothing(tmp_path):
    module = ScriptedModule([1])
    toy_trainer(EarlyStopping("val/loss"), fast_dev_run=True).fit(module, *toy_loaders())
    assert not (tmp_path / "checkpoints").exists()


def test_pickled_it_is_the_same():
    stopping = EarlyStopping("val/loss")
    assert vars(pickle.loads(pickle.dumps(stopping))) == vars(stopping)


def test_the_best_of_several_validations_in_an_epoch_comes_back(tmp_path):
    class Quarters(ScriptedModule):
        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                self.log("val/loss", float(self.values[len(self.seen) - 1]))

    module = Quarters([5, 1, 6, 4, 3, 3, 3, 3])  # logs nothing of it in the sanity check
    save = ModelCheckpoint(tmp_path, monitor="val/loss", save_on_train_epoch_end=True)
    options = {"val_check_interval": 0.25, "num_sanity_val_steps": 0}
    trainer = toy_trainer(EarlyStopping("val/loss", patience=20), save, max_epochs=2, **options)
    trainer.fit(module, *toy_loaders())
    assert difference(module.state_dict(), module.seen[1]) == 0


def test_the_modules_own_checkpoint_hook_is_asked_on_restore(tmp_path):
    class Slim(ScriptedModule):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["state_dict"] = {f"slim.{name}": value for name, value in checkpoint["state_dict"].items()}

        def on_load_checkpoint(self, checkpoint):
            checkpoint["state_dict"] = {name[5:]: value for name, value in checkpoint["state_dict"].items()}

    for others in ([], [BestCheckpoint("val/loss", "min", dirpath=str(tmp_path / "best"))]):
        module = Slim([3, 1, 7])
        toy_trainer(EarlyStopping("val/loss"), *others, max_epochs=3).fit(module, *toy_loaders())
        assert difference(module.state_dict(), module.seen[1]) == 0
    fresh = Slim([])
    load_best(fresh, tmp_path / "best")
    assert difference(fresh.state_dict(), module.seen[1]) == 0


def test_a_checkpoint_that_judges_the_metric_by_another_mode_is_an_error_before_training(tmp_path):
    module = ScriptedModule([1])
    save = BestCheckpoint("val/acc", "max", dirpath=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"`mode` must be the same for all that monitor val/acc, got 'min' here and 'max'"
    ):
        toy_trainer(EarlyStopping("val/acc", mode="min"), save).fit(module, *toy_loaders())
    assert module.global_step == 0
