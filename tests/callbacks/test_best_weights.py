"""The file of the best weights of EarlyStopping and TransferLearning through kills, resumes and extensions."""

import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_trainingkit import EarlyStopping, EpochSeed, TransferLearning
from lightning_trainingkit.nn.weights.checkpoint import load_weights
from tests.toy import ScriptedModule, ToyModule, difference, toy_data, toy_loaders, toy_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # resumed on purpose
each_callback = pytest.mark.parametrize("kind", ["EarlyStopping", "TransferLearning"])


def new(kind, monitor="val/loss", **options):
    if kind == "EarlyStopping":
        return EarlyStopping(monitor, **{"patience": 20} | options)
    phases = [{"train": "all"}, {"train": "head", "patience": 2}]
    return TransferLearning(phases, **{"monitor": monitor, "restore_best": True, "verbose": False} | options)


class Logs(ToyModule):
    """Logs scripted values in training and for each validation loader."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/cost", self.values[self.current_epoch], on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/loss", self.values[self.current_epoch] * (1 - 2 * dataloader_idx))


class Stop(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise ArithmeticError


def fit(folder, callbacks, values, *, kind=ScriptedModule, max_epochs=5, resume=None, loaders=1):
    """Train with checkpoints in a folder apart from the best weights."""
    L.seed_everything(0, verbose=False)
    module = kind(values)
    save = ModelCheckpoint(folder / "saved", filename="{epoch}", save_last=True, save_on_train_epoch_end=False)
    trainer = toy_trainer(*callbacks, EpochSeed(0), save, max_epochs=max_epochs, default_root_dir=folder)
    trainer.fit(module, toy_loaders()[0], [DataLoader(toy_data(), 16)] * loaders, ckpt_path=resume)
    return module


def apart(one, other):
    return difference(one.state_dict(), other.state_dict())


def own_files(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@each_callback
@pytest.mark.parametrize(
    ("monitor", "loaders", "values"),
    [
        ("val/loss", 1, [5.0, 1.0, 2.0, 3.0, 4.0]),  # the best is of before the extension
        ("val/loss", 1, [5.0, 4.0, 1.0, 2.0, 3.0]),  # of the last epoch before it
        ("val/loss/dataloader_idx_0", 2, [5.0, 1.0, 2.0, 3.0, 4.0]),
        ("val/loss/dataloader_idx_0", 2, [5.0, 4.0, 1.0, 2.0, 3.0]),
        ("train/cost", 1, [5.0, 4.0, 3.0, 1.0, 2.0]),  # of the extension
    ],
)
def test_a_finished_run_that_is_extended_ends_like_an_unbroken_one(tmp_path, kind, monitor, loaders, values):
    logs = {"values": values, "kind": Logs, "loaders": loaders}
    unbroken = fit(tmp_path / "unbroken", [new(kind, monitor)], **logs)
    fit(tmp_path / "run", [new(kind, monitor)], **logs, max_epochs=3)
    extended = fit(tmp_path / "run", [new(kind, monitor)], **logs, resume=tmp_path / "run" / "saved" / "last.ckpt")
    assert apart(unbroken, extended) == 0


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
@each_callback
def test_a_file_that_was_moved_beside_the_checkpoint_is_found(tmp_path, kind):
    values = [5.0, 1.0, 2.0, 3.0, 4.0]
    unbroken = fit(tmp_path / "unbroken", [new(kind)], values)
    fit(tmp_path / "run", [new(kind)], values, max_epochs=3)
    (tmp_path / "moved").mkdir()
    for path in (*(tmp_path / "run").glob("checkpoints/*"), tmp_path / "run" / "saved" / "last.ckpt"):
        path.rename(tmp_path / "moved" / path.name)
    resume = tmp_path / "moved" / "last.ckpt"
    extended = fit(tmp_path / "elsewhere", [new(kind)], values, resume=resume)
    assert apart(unbroken, extended) == 0
    assert len(list((tmp_path / "moved").iterdir())) == 2  # nothing there is removed


@each_callback
def test_a_file_that_is_gone_is_an_error_before_training(tmp_path, kind):
    fit(tmp_path, [new(kind)], [2.0, 1.0, 3.0], max_epochs=3)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    resume = tmp_path / "saved" / "last.ckpt"
    seen = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch_idx)

    with pytest.raises(
        FileNotFoundError,
        match=r"is gone. Only the newest .* or pass `restore_best=False`",
    ):
        fit(tmp_path, [new(kind), Watch()], [1.0], resume=resume)
    assert not seen
    fit(tmp_path, [new(kind, restore_best=False)], [1.0], resume=resume)  # as the error advises
    assert not own_files(tmp_path)


@each_callback
def test_a_checkpoint_without_the_callbacks_state_lets_the_best_begin_there(tmp_path, kind, caplog):
    caplog.set_level("INFO")
    values = [1.0, 2.0, 9.0, 3.0, 4.0, 5.0]
    fit(tmp_path, [], values, max_epochs=2)
    module = fit(tmp_path, [new(kind)], values, max_epochs=6, resume=tmp_path / "saved" / "last.ckpt")
    (file,) = (tmp_path / "checkpoints").iterdir()
    assert "epoch=3" in file.name
    assert difference(load_weights(file), module.seen[1]) == 0
    assert kind == "TransferLearning" or difference(module.state_dict(), module.seen[1]) == 0
    assert caplog.text.count(f"{kind}: the checkpoint has no best weights, the best by val/loss begins here") == 1


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_lightnings_own_state_has_no_weights_of_its_best(tmp_path):
    peer = L.pytorch.callbacks.EarlyStopping("val/loss", patience=20, check_on_train_epoch_end=False)
    fit(tmp_path, [peer], [3, 1], max_epochs=2)
    module = fit(tmp_path, [new("EarlyStopping")], [3, 1, 7, 5, 6], resume=tmp_path / "saved" / "last.ckpt")
    assert difference(module.state_dict(), module.seen[1]) == 0  # epoch 3, the second one seen here


@each_callback
def test_weights_that_a_run_without_restore_best_did_not_keep_are_not_taken_for_the_best(tmp_path, kind):
    values = [3.0, 2.0, 1.0, 5.0, 4.0]
    fit(tmp_path, [new(kind)], values, max_epochs=2)
    resume = tmp_path / "saved" / "last.ckpt"
    fit(tmp_path, [new(kind, restore_best=False)], values, max_epochs=3, resume=resume)
    assert len(own_files(tmp_path)) == 1  # the first run's, untouched
    callback = new(kind)
    fit(tmp_path, [callback], values, resume=resume)
    assert "epoch=4" in Path(callback.state_dict()["best_file"]).name


@each_callback
def test_a_killed_run_finds_its_file_and_none_piles_up(tmp_path, kind):
    class Count(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            there.append(len(list(tmp_path.glob("checkpoints/*"))))

    values, there = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], []
    for stop, resume in ((14, None), (23, "last"), (None, "last")):
        with pytest.raises(ArithmeticError) if stop else pytest.warns():
            last = tmp_path / "saved" / "last.ckpt" if resume else None
            fit(tmp_path, [new(kind), Stop(stop), Count()], values, max_epochs=8, resume=last)
    assert max(there) == 2
    assert len(own_files(tmp_path)) == 1
    assert "epoch=7" in own_files(tmp_path)[0]


@each_callback
def test_the_file_that_the_newest_checkpoint_names_is_there_at_each_step(tmp_path, kind):
    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            saved = sorted(tmp_path.glob("rare/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
            if saved:
                states = torch.load(saved[-1], weights_only=True)["callbacks"]
                (file,) = [state["best_file"] for key, state in states.items() if key.startswith(kind)]
                found.append(Path(file).exists())

    found = []
    rare = ModelCheckpoint(tmp_path / "rare", every_n_epochs=3, save_on_train_epoch_end=False)
    trainer = toy_trainer(new(kind), Look(), rare, max_epochs=9, default_root_dir=tmp_path)
    trainer.fit(ScriptedModule([9, 8, 7, 6, 5, 4, 3, 2, 1]), *toy_loaders())
    assert found == [True] * 24


@each_callback
def test_what_a_kill_leaves_before_a_checkpoint_names_it_is_swept_by_the_next_fit(tmp_path, kind):
    callbacks = [new(kind), Stop(6)]
    with pytest.raises(ArithmeticError):
        toy_trainer(*callbacks, max_epochs=8, default_root_dir=tmp_path).fit(ScriptedModule([1.0]), *toy_loaders())
    (left,) = (tmp_path / "checkpoints").iterdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])  # as if that process had written it
    ended.wait()
    left.rename(left.with_name(left.name.replace(left.suffixes[-2].rpartition("-")[2], str(ended.pid))))
    # The same callback: its former fit holds the file until then, as a process that lives in another container would.
    toy_trainer(callbacks[0], max_epochs=1, default_root_dir=tmp_path).fit(ScriptedModule([1.0]), *toy_loaders())
    (file,) = own_files(tmp_path)
    assert file.startswith(f"{kind}-val_loss-epoch=0-step=4-")


def test_callbacks_and_runs_with_one_folder_leave_each_others_files_alone(tmp_path):
    class Two(ScriptedModule):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/acc", [0.9, 0.1, 0.2][self.current_epoch])

        def validation_step(self, batch, batch_idx):
            pass

    def run():
        module = Two([3.0, 1.0, 2.0])
        stopping = [EarlyStopping("val/loss"), EarlyStopping("val/acc", mode="max")]
        toy_trainer(*stopping, new("TransferLearning"), max_epochs=3, default_root_dir=tmp_path).fit(
            module, *toy_loaders()
        )
        return module

    def check(module, files):
        for file in files:
            assert difference(load_weights(file), module.seen[0 if "acc" in file.name else 1]) == 0
        return len(files)

    first = run()
    files = set((tmp_path / "checkpoints").iterdir())
    assert check(first, files) == 3
    second = run()
    assert check(first, files) == 3
    assert check(second, set((tmp_path / "checkpoints").iterdir()) - files) == 3


@each_callback
def test_a_remote_folder_is_refused_before_training(kind):
    module = ScriptedModule([1.0])
    with pytest.raises(ValueError, match="`restore_best` must have a local folder to keep the best weights in"):
        toy_trainer(new(kind), default_root_dir="memory://run").fit(module, *toy_loaders())
    assert not module.global_step
