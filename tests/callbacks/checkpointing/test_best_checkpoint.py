import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from lightning_trainingkit import BestCheckpoint, EarlyStopping, SnapshotCheckpoint, best_path, load_best
from lightning_trainingkit._files import claim, temporary
from lightning_trainingkit.nn.weights.checkpoint import load_weights
from tests.locked import elsewhere, free
from tests.toy import ScriptedModule, ToyModule, difference, toy_loaders, toy_trainer

same_folder = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # on purpose


def fit(values, *callbacks, max_epochs=5, **options):
    module = ScriptedModule(values)
    trainer = toy_trainer(*callbacks, max_epochs=max_epochs, **options)
    trainer.fit(module, *toy_loaders())
    return module, trainer


def checkpoint(tmp_path, monitor="val/loss", mode="min", **options):
    return BestCheckpoint(monitor, mode, dirpath=str(tmp_path / "checkpoints"), **options)


def test_the_best_is_found_again_by_its_manifest(tmp_path):
    module, _ = fit([3, 1, 2, 4], checkpoint(tmp_path, save_top_k=2))
    manifest = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert [(entry["score"], entry["epoch"], entry["step"]) for entry in manifest["top_k"]] == [(1, 1, 8), (2, 2, 12)]
    assert (manifest["monitor"], manifest["mode"]) == ("val/loss", "min")
    fresh = ScriptedModule([])
    assert load_best(fresh, tmp_path / "checkpoints") == best_path(tmp_path / "checkpoints")
    assert difference(fresh.state_dict(), module.seen[1]) == 0
    assert difference(module.state_dict(), module.seen[-1]) == 0  # nothing was restored unasked
    on_disk = {file.name for file in (tmp_path / "checkpoints").iterdir()}
    assert on_disk == {"best.json"} | {entry["path"] for entry in manifest["top_k"]}


@pytest.mark.parametrize("plugins", [None, AsyncCheckpointIO])
def test_restore_puts_the_best_back(tmp_path, plugins):
    options = {"plugins": [plugins()]} if plugins else {}
    module, _ = fit([3, 1, 2, 4], checkpoint(tmp_path, restore=True), **options)
    assert difference(module.state_dict(), module.seen[1]) == 0


def test_every_file_is_whole_at_every_moment(tmp_path, monkeypatch):
    folder, seen = tmp_path / "checkpoints", []
    replace = Path.replace

    def look(self, target):
        if self.parent == folder:  # the heartbeat of another test's open run may still be written
            for file in folder.glob("*.ckpt"):
                assert torch.load(file, weights_only=True)["state_dict"]
            if (folder / "best.json").exists():
                assert best_path(folder).exists()
            seen.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    fit([3, 2, 1, 4], checkpoint(tmp_path, save_last=True))
    assert seen.count("best.json") == sum(name.startswith("epoch=") for name in seen) == 3
    assert seen.count("last.ckpt") == 5  # nothing was written but under another name
    assert not list(folder.glob("*.tmp"))


def test_what_a_killed_run_left_half_written_is_swept_up(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    mine = temporary(tmp_path / "checkpoints" / "epoch=7.ckpt")  # another trainer of this process may be writing it
    mine.parent.mkdir()
    for file in (mine, mine.with_name(mine.name.replace(str(os.getpid()), gone.stdout.strip()))):
        file.write_bytes(b"half")
    with pytest.warns(UserWarning, match="exists and is not empty"):
        fit([1], checkpoint(tmp_path), max_epochs=1)
    assert list((tmp_path / "checkpoints").glob("*.tmp")) == [mine]


def test_last_is_the_last_and_not_the_last_of_the_best(tmp_path):
    module, trainer = fit([3, 1, 2, 4], checkpoint(tmp_path, save_last=True), max_epochs=4)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == trainer.global_step == 16
    assert difference(last["state_dict"], module.seen[-1]) == 0


def test_a_replaced_checkpoint_stays_until_the_last_one_no_longer_names_it(tmp_path):
    class Look(L.Callback):
        def setup(self, trainer, pl_module, stage):
            remove = trainer.strategy.remove_checkpoint
            trainer.strategy.remove_checkpoint = lambda path: (self.on_validation_end(trainer, pl_module), remove(path))

        def on_validation_end(self, trainer, pl_module):
            for file in (tmp_path / "checkpoints").glob("last*.ckpt"):
                state = next(iter(torch.load(file, weights_only=True)["callbacks"].values()))
                assert Path(state["best_model_path"]).exists()

    fit([5, 4, 3, 2, 1], Look(), checkpoint(tmp_path, save_last=True))


@pytest.mark.parametrize("order", [1, -1])
def test_beside_ema_the_averaged_weights_are_best_restored_and_tested(tmp_path, order):
    save = checkpoint(tmp_path, restore=True)
    module, trainer = fit([3, 1, 2, 4], *[EMAWeightAveraging(decay=0.5), save][::order])
    assert difference(module.state_dict(), module.seen[1]) == 0
    assert difference(load_weights(best_path(tmp_path / "checkpoints")), module.seen[1]) == 0
    seen = module.seen[1]
    fresh_weights = {name: torch.zeros_like(value) for name, value in seen.items()}
    module.load_state_dict(fresh_weights)
    trainer.test(module, toy_loaders()[1], ckpt_path="best", verbose=False)
    assert difference(module.state_dict(), seen) == 0


def test_beside_ema_files_of_weights_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`save_weights_only` must be False beside"):
        fit([1], EMAWeightAveraging(), checkpoint(tmp_path, save_weights_only=True))


@same_folder
def test_a_second_fit_begins_anew(tmp_path):
    save = checkpoint(tmp_path, restore=True)
    fit([3, 1, 2], save, max_epochs=3)
    module, _ = fit([9, 7, 8], save, max_epochs=3)
    assert save.best_model_score == 7
    assert difference(module.state_dict(), module.seen[1]) == 0


@same_folder
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_resumed_run_knows_the_best_of_before(tmp_path, killed_after):
    fit([3, 1, 2, 4], checkpoint(tmp_path, save_last=True), max_epochs=killed_after)
    save = checkpoint(tmp_path, save_last=True, restore=True)
    module = ScriptedModule([3, 1, 2, 4])
    toy_trainer(save, max_epochs=4).fit(module, *toy_loaders(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert save.best_model_score == 1
    manifest = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert (manifest["top_k"][0]["epoch"], manifest["top_k"][0]["step"]) == (1, 8)
    assert difference(module.state_dict(), load_weights(best_path(tmp_path / "checkpoints"))) == 0


@same_folder
def test_best_files_that_went_missing_are_named_on_resume(tmp_path):
    fit([3, 1], checkpoint(tmp_path, save_last=True), max_epochs=2)
    best_path(tmp_path / "checkpoints").unlink()
    save = checkpoint(tmp_path, save_last=True)
    with pytest.warns(UserWarning, match=r"Best snapshots of before the resume are gone: .*epoch=1"):
        toy_trainer(save, max_epochs=4).fit(
            ScriptedModule([3, 1, 2, 4]), *toy_loaders(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt"
        )
    assert save.best_model_score == 2


def test_nan_is_never_best(tmp_path):
    nan = float("nan")
    save = checkpoint(tmp_path, restore=True)
    with pytest.warns(UserWarning, match=r"val/loss is nan after epoch 0"):
        module, _ = fit([nan, 3, nan, 4], save, max_epochs=4)
    assert save.best_model_score == 3
    assert difference(module.state_dict(), module.seen[1]) == 0


def test_infinity_is_never_best_and_training_goes_on(tmp_path):
    save = checkpoint(tmp_path)
    with pytest.warns(UserWarning, match="val/loss is inf after epoch 0"):
        fit([float("inf"), 2, 1], save, max_epochs=3)
    assert save.best_model_score == 1


def test_a_monitor_that_is_always_nan_is_an_error(tmp_path):
    with (
        pytest.warns(UserWarning, match="is nan"),
        pytest.raises(ValueError, match=r"`val/loss` must be a number.*got NaN or infinity each time"),
    ):
        fit([float("nan")], checkpoint(tmp_path), max_epochs=2)


def test_an_unknown_monitor_is_an_error_before_training_that_lists_the_logged_ones(tmp_path):
    module = ScriptedModule([1])
    with pytest.raises(ValueError, match=r"got 'val/accuracy'. Logged: val/acc, val/loss\."):
        toy_trainer(checkpoint(tmp_path, "val/accuracy", "max")).fit(module, *toy_loaders())
    assert module.global_step == 0
    with pytest.raises(ValueError, match=r"got 'val/accuracy'. Logged: .*val/acc"):
        fit([1], checkpoint(tmp_path, "val/accuracy", "max"), num_sanity_val_steps=0)


def test_a_training_metric_is_saved_by_at_the_end_of_the_epoch_if_asked(tmp_path):
    save = checkpoint(tmp_path, "train/loss", save_on_train_epoch_end=True)
    toy_trainer(save).fit(ToyModule(), *toy_loaders())
    assert best_path(tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "best"}, ValueError, "`mode` must be one of 'min', 'max', got 'best'"),
        ({"save_top_k": 0}, ValueError, "`save_top_k` must be positive"),
        ({"save_top_k": -2}, ValueError, "`save_top_k` must be at least -1"),
        ({"save_top_k": "1"}, TypeError, "`save_top_k` must be an integer"),
        ({"every_n_epochs": "2"}, TypeError, "`every_n_epochs` must be an integer"),
        ({"every_n_train_steps": -1}, ValueError, "`every_n_train_steps` must be at least 0"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        BestCheckpoint("val/acc", **{"mode": "max"} | options)


def test_two_in_one_folder(tmp_path):
    with pytest.raises(ValueError, match="`dirpath` must differ between two BestCheckpoints"):
        fit([1], checkpoint(tmp_path), checkpoint(tmp_path, "val/acc", "max"))


def test_remote_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`dirpath` must be a local folder"):
        fit([1], BestCheckpoint("val/acc", "max", dirpath="memory://folder"))


def test_lightning_finds_it_as_its_own(tmp_path):
    save = checkpoint(tmp_path)
    assert isinstance(save, ModelCheckpoint)
    _, trainer = fit([2, 1, 3], save, max_epochs=3)
    assert trainer.checkpoint_callback is save
    assert trainer.checkpoint_callback.best_model_path == os.fspath(best_path(tmp_path / "checkpoints"))


@same_folder
def test_a_moved_folder_is_resumed_with_its_best(tmp_path):
    fit([3, 1], checkpoint(tmp_path, save_last=True), max_epochs=2)
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    save = BestCheckpoint("val/loss", "min", dirpath=str(tmp_path / "moved"), save_last=True, restore=True)
    module = ScriptedModule([3, 1, 2, 4])
    trainer = toy_trainer(save, max_epochs=4)
    trainer.fit(module, *toy_loaders(), ckpt_path=tmp_path / "moved" / "last.ckpt")
    assert save.best_model_score == 1
    assert best_path(tmp_path / "moved").parent == tmp_path / "moved"
    assert difference(module.state_dict(), load_weights(best_path(tmp_path / "moved"))) == 0


class Act(L.Callback):
    """Calls a function at a hook."""

    def __init__(self, hook, function):
        setattr(self, hook, lambda *_, **__: function())


@pytest.mark.parametrize("kind", [BestCheckpoint, SnapshotCheckpoint])
def test_a_folder_in_which_another_run_trains_is_refused_before_training(tmp_path, kind):
    options = {"monitor": "val/loss", "mode": "min"} if kind is BestCheckpoint else {"cycles": 2}
    save, module = kind(**options, dirpath=str(tmp_path)), ToyModule()
    with (
        elsewhere(tmp_path),
        pytest.raises(ValueError, match="`dirpath` must be a folder that no other run is writing"),
    ):
        toy_trainer(save).fit(module, *toy_loaders())
    assert module.global_step == 0
    assert not list(tmp_path.iterdir())
    held = []
    toy_trainer(save, Act("on_train_batch_end", lambda: held.append(not free(tmp_path)))).fit(module, *toy_loaders())
    assert held
    assert all(held)
    assert free(tmp_path)
    toy_trainer(kind(**options, dirpath=str(tmp_path / "trial")), fast_dev_run=True).fit(ToyModule(), *toy_loaders())
    assert not (tmp_path / "trial").exists()


@same_folder
@pytest.mark.parametrize("hook", ["setup", "on_train_start", "on_train_batch_end", "on_fit_end", "on_exception"])
def test_the_folder_is_free_again_whatever_raises(tmp_path, hook):
    def fail():
        raise ArithmeticError

    save = checkpoint(tmp_path)
    fails = [Act(hook, fail), *([Act("on_train_start", fail)] if hook == "on_exception" else [])]
    trainer, module = toy_trainer(*fails[1:], save, fails[0]), ToyModule()
    if hook == "setup":  # the module's comes after all callbacks'
        trainer, module.setup = toy_trainer(save), lambda stage: fail()
    with pytest.raises(ArithmeticError):
        trainer.fit(module, *toy_loaders())
    assert free(tmp_path / "checkpoints") or hook == "on_exception"  # after which Lightning calls no other callback
    trainer = toy_trainer(save, max_epochs=1)  # a second Trainer of this process
    trainer.fit(ToyModule(), *toy_loaders())
    assert free(tmp_path / "checkpoints")


def test_all_callbacks_of_a_trainer_share_one_folder(tmp_path):
    folder = str(tmp_path / "checkpoints")
    save, snapshots = BestCheckpoint("val/loss", "min", dirpath=folder), SnapshotCheckpoint(2, dirpath=folder)
    trainer = toy_trainer(EarlyStopping("val/loss"), save, snapshots, default_root_dir=tmp_path)
    trainer.fit(ScriptedModule([1, 2]), *toy_loaders())
    assert len(list(tmp_path.glob("checkpoints/*"))) == 5


@pytest.fixture
def without_locks(monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.EBADF, "as NFS says")

    monkeypatch.setattr(fcntl, "flock", flock)


@same_folder
def test_without_locks_two_runs_in_step_keep_apart_and_one_line_says_so(tmp_path, without_locks, caplog):
    caplog.set_level("INFO")
    other = tmp_path / "checkpoints" / "epoch=0-step=4.ckpt"
    other.parent.mkdir()
    assert claim(other)  # another run is about to write it
    save = checkpoint(tmp_path, restore=True, save_last=True)
    module, _ = fit([1, 2], save)
    assert Path(save.best_model_path).name == "epoch=0-step=4-v1.ckpt"
    assert difference(module.state_dict(), module.seen[0]) == 0
    assert not other.exists()
    fit([1, 2], save)
    assert caplog.text.count("has no locks") == 1
    assert [path.name for path in tmp_path.glob("**/*.tmp")] == [f"{other.name}.claim.tmp"]


@pytest.mark.parametrize("restore", [False, True])
def test_weights_of_another_run_are_never_taken_for_the_best(tmp_path, restore):
    fit([1], other := checkpoint(tmp_path / "other"), max_epochs=1)
    save = checkpoint(tmp_path, restore=restore)

    def overwrite():
        shutil.copy(other.best_model_path, save.best_model_path)

    trainer, module = toy_trainer(save, Act("on_train_end", overwrite), max_epochs=1), ScriptedModule([1])
    refused = pytest.raises(ValueError, match="must be the file of this run, got a file that another run has put")
    with refused if restore else contextlib.nullcontext():
        trainer.fit(module, *toy_loaders())
    assert difference(module.state_dict(), module.seen[0]) == 0
    with refused:
        trainer.test(module, toy_loaders()[1], ckpt_path="best")
    with pytest.raises(ValueError, match="another run has put in its place"):
        load_best(module, tmp_path / "checkpoints")


@same_folder
def test_a_resumed_run_is_the_same_run(tmp_path):
    fit([1, 2], checkpoint(tmp_path, save_last=True), max_epochs=2)
    save = checkpoint(tmp_path, save_last=True, restore=True)
    module = ScriptedModule([1, 2, 3])
    trainer = toy_trainer(save, max_epochs=3)
    trainer.fit(module, *toy_loaders(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    trainer.test(module, toy_loaders()[1], ckpt_path="best", verbose=False)
    load_best(module, tmp_path / "checkpoints")


@same_folder
def test_a_folder_in_the_place_of_the_manifest_is_refused_before_training(tmp_path):
    mine = tmp_path / "checkpoints" / "best.json" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    module = ScriptedModule([1])
    with pytest.raises(ValueError, match=r"`.*best.json` must be free for a file, got a folder"):
        toy_trainer(checkpoint(tmp_path)).fit(module, *toy_loaders())
    assert module.global_step == 0
    assert mine.read_text() == "precious"


def test_a_damaged_best_file_is_an_error_and_changes_no_weights(tmp_path):
    save = checkpoint(tmp_path, restore=True)

    def damage():
        path = Path(save.best_model_path)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            (record, *_) = (each for each in archive.infolist() if "/data/" in each.filename)
        content[record.header_offset + 200] ^= 8
        path.write_bytes(content)

    trainer, module = toy_trainer(save, Act("on_train_end", damage), max_epochs=1), ScriptedModule([1])
    with pytest.raises(ValueError, match="must be a whole checkpoint written by torch, got a truncated, damaged"):
        trainer.fit(module, *toy_loaders())
    assert difference(module.state_dict(), module.seen[0]) == 0


def test_a_resume_in_a_new_folder_knows_the_old_best(tmp_path):
    fit([3, 1, 2], checkpoint(tmp_path, save_last=True), max_epochs=3)
    save = BestCheckpoint("val/loss", "min", dirpath=str(tmp_path / "version_1"), restore=True)
    module = ScriptedModule([3, 1, 2, 5, 4])
    toy_trainer(save, max_epochs=5).fit(module, *toy_loaders(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert save.best_model_score == 1
    best = load_weights(best_path(tmp_path / "version_1"))
    assert difference(best, load_weights(best_path(tmp_path / "checkpoints"))) == 0
    assert difference(module.state_dict(), best) == 0
    test = BestCheckpoint("val/loss", "min", dirpath=str(tmp_path / "version_2"))
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        toy_trainer(test).test(module, toy_loaders()[1], ckpt_path=last, verbose=False)
    assert not (tmp_path / "version_2").exists()  # nothing is copied by an evaluation


def test_a_metric_of_training_steps_is_no_matter_of_the_sanity_check(tmp_path):
    save = checkpoint(tmp_path, "train/loss", every_n_train_steps=2)
    toy_trainer(save, max_epochs=1, num_sanity_val_steps=1).fit(ToyModule(), *toy_loaders())
    assert save.best_model_path
