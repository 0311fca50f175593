import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_trainingkit import EarlyStopping, EpochSeed, ImageClassifier
from lightning_trainingkit._files import temporary
from lightning_trainingkit.callbacks.checkpointing.snapshot_checkpoint import SnapshotCheckpoint
from lightning_trainingkit.functional.schedules import cycle_ends
from lightning_trainingkit.nn.weights.checkpoint import load_weights
from tests.toy import ScriptedModule, ToyModule, difference, toy_data, toy_loaders, toy_trainer


class Look(L.Callback):
    """Keeps a copy of the weights after every optimizer step."""

    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.at.setdefault(trainer.global_step, weights)


def fit(*callbacks, module=None, data=None, ckpt_path=None, **options):
    L.seed_everything(0, verbose=False)
    module = module or ToyModule()
    trainer = toy_trainer(*callbacks, **options)
    train, val = toy_loaders()
    trainer.fit(module, train if data is None else data, val, ckpt_path=ckpt_path)
    return module, trainer


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("cycles", [1, 2, 3, 12])
def test_the_weights_of_the_end_of_each_cycle(tmp_path, cycles):
    look, save = Look(), SnapshotCheckpoint(cycles, dirpath=str(tmp_path / "snapshots"))
    fit(look, save, max_epochs=3)
    assert save.paths == [str(tmp_path / "snapshots" / f"snapshot-{i + 1}.ckpt") for i in range(cycles)]
    assert names(tmp_path / "snapshots") == sorted(Path(path).name for path in save.paths)
    for path, step in zip(save.paths, cycle_ends(12, cycles), strict=True):
        assert difference(load_weights(path), look.at[step]) == 0
        assert torch.load(path, weights_only=True)["global_step"] == step


def test_they_are_where_the_cyclic_schedule_is_lowest(tmp_path):
    class Rates(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    module = ImageClassifier(net, 2, schedule="cyclic_cosine", schedule_options={"cycles": 3}, lr=1.0)
    save = SnapshotCheckpoint(3, dirpath=str(tmp_path / "snapshots"))
    fit(Rates(), save, module=module, max_epochs=3)
    steps = [torch.load(path, weights_only=True)["global_step"] for path in save.paths]
    lowest = [t + 1 for t in range(12) if t == 11 or rates[t + 1] > rates[t]]
    assert steps == lowest == [4, 8, 12]


def test_a_snapshot_loads_without_running_code_and_holds_no_optimizer(tmp_path):
    save = SnapshotCheckpoint(2, dirpath=str(tmp_path))
    module, _ = fit(save, module=ToyModule(lr=0.05))
    loaded = ToyModule.load_from_checkpoint(save.paths[-1], weights_only=True)
    assert difference(loaded.state_dict(), module.state_dict()) == 0
    assert loaded.hparams.lr == 0.05
    assert "optimizer_states" not in torch.load(save.paths[-1], weights_only=True)


def test_it_stands_beside_lightnings_checkpoints_and_not_in_their_place(tmp_path):
    save = SnapshotCheckpoint(2)
    _, trainer = fit(save, enable_checkpointing=True, logger=CSVLogger(tmp_path, "name", "run"))
    assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    assert names(tmp_path / "name" / "run") == ["checkpoints", "hparams.yaml", "metrics.csv", "snapshots"]
    assert names(tmp_path / "name" / "run" / "snapshots") == ["snapshot-1.ckpt", "snapshot-2.ckpt"]
    save = SnapshotCheckpoint(2)
    fit(save, default_root_dir=tmp_path / "root")
    assert Path(save.paths[0]).parent == tmp_path / "root" / "snapshots"
    fit(SnapshotCheckpoint(2), logger=CSVLogger(tmp_path))
    assert len(names(tmp_path / "lightning_logs" / "version_0" / "snapshots")) == 2


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"accumulate_grad_batches": 3, "max_epochs": 3}, [2, 4, 6]),  # two steps an epoch
        ({"max_steps": 6, "max_epochs": -1}, [2, 4, 6]),
        ({"max_steps": 7, "max_epochs": 5}, [2, 4, 7]),
        ({"limit_train_batches": 3, "max_epochs": 1}, [1, 2, 3]),
    ],
)
def test_optimizer_steps_are_counted(tmp_path, options, steps):
    look, save = Look(), SnapshotCheckpoint(3, dirpath=str(tmp_path))
    fit(look, save, **options)
    assert [torch.load(path, weights_only=True)["global_step"] for path in save.paths] == steps
    for path, step in zip(save.paths, steps, strict=True):
        assert difference(load_weights(path), look.at[step]) == 0


def test_beside_ema_they_are_the_weights_of_training(tmp_path):
    plain, averaged = (SnapshotCheckpoint(2, dirpath=str(tmp_path / name)) for name in ("plain", "averaged"))
    fit(plain)
    fit(EMAWeightAveraging(decay=0.9), averaged)
    for pair in zip(plain.paths, averaged.paths, strict=True):
        assert difference(*map(load_weights, pair)) == 0


@pytest.mark.parametrize("plugins", [None, AsyncCheckpointIO])
def test_every_file_is_whole_at_every_moment(tmp_path, monkeypatch, plugins):
    replace, seen = Path.replace, []

    def look(self, target):
        if self.parent == tmp_path:  # the heartbeat of another test's open run may still be written
            seen.append(Path(target).name)
            assert load_weights(self)
            assert not Path(target).exists()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    save = SnapshotCheckpoint(4, dirpath=str(tmp_path))
    fit(save, plugins=plugins and [plugins()])
    assert seen == ([] if plugins else [f"snapshot-{i}.ckpt" for i in (1, 2, 3, 4)])
    assert all(map(load_weights, save.paths))
    assert len(names(tmp_path)) == 4


# Resuming

same_folder = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # on purpose


class Kill(L.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):  # after the validation, whose end is saved
        if trainer.current_epoch == self.epoch:
            raise ArithmeticError


class SaveAt(L.Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def run(folder, *callbacks, cycles=3, dirpath=None, max_epochs=4, **options):
    save = SnapshotCheckpoint(cycles, dirpath=dirpath)
    last = ModelCheckpoint(folder / "checkpoints", save_last=True, save_on_train_epoch_end=False)
    fit(EpochSeed(1), save, last, *callbacks, logger=CSVLogger(folder), max_epochs=max_epochs, **options)
    return save


@same_folder
@pytest.mark.parametrize("killed_in", [1, 2, 3])
@pytest.mark.parametrize("own_folder", [False, True])
def test_a_resumed_run_ends_with_the_same_files(tmp_path, killed_in, own_folder):
    dirpath = str(tmp_path / "mine") if own_folder else None
    unbroken = run(tmp_path / "unbroken")
    with pytest.raises(ArithmeticError):
        run(tmp_path / "broken", Kill(killed_in), dirpath=dirpath)
    resumed = run(tmp_path / "broken", dirpath=dirpath, ckpt_path=tmp_path / "broken" / "checkpoints" / "last.ckpt")
    assert [Path(path).name for path in resumed.paths] == [Path(path).name for path in unbroken.paths]
    assert sorted(map(str, tmp_path.glob("[bm]*/**/snapshot-*.ckpt"))) == resumed.paths  # all in one folder
    for pair in zip(resumed.paths, unbroken.paths, strict=True):
        assert difference(*map(load_weights, pair)) == 0


@same_folder
def test_what_was_written_after_the_checkpoint_is_written_again(tmp_path):
    save = run(tmp_path, SaveAt(8, tmp_path / "early.ckpt"))
    expected = list(map(load_weights, save.paths))
    for path in save.paths[1:]:
        torch.save({"stale": torch.ones(1)}, path)
    resumed = run(tmp_path, ckpt_path=tmp_path / "early.ckpt")
    assert resumed.paths == save.paths
    assert difference(load_weights(resumed.paths[0]), expected[0]) == 0
    for path, weights in zip(resumed.paths, expected, strict=True):
        assert load_weights(path).keys() == weights.keys()


@same_folder
def test_a_run_that_is_made_longer_goes_on_numbering(tmp_path, caplog):
    run(tmp_path, cycles=2, max_epochs=2)
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    longer = run(tmp_path, cycles=2, max_epochs=5, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    steps = [torch.load(path, weights_only=True)["global_step"] for path in longer.paths]
    assert steps == [4, 8, 10, 20]
    assert "are of steps [4, 8], planned for another number of steps or cycles" in caplog.text
    assert "2 cycles in 20 steps: [10, 20]" in caplog.text


@same_folder
def test_snapshots_that_are_gone_are_named(tmp_path):
    with pytest.raises(ArithmeticError):
        run(tmp_path, Kill(2))
    with pytest.warns(
        UserWarning, match=r"Snapshots of before the resume are not in .*new: snapshot-1.ckpt, snapshot-2"
    ):
        moved = run(tmp_path, dirpath=str(tmp_path / "new"), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert names(tmp_path / "new") == [Path(moved.paths[-1]).name]


@same_folder
def test_a_checkpoint_from_right_before_a_snapshot(tmp_path):
    unbroken = run(tmp_path / "unbroken", cycles=2)
    before = SaveAt(8, tmp_path / "8.ckpt")  # comes first in the list, and saves first
    with pytest.raises(ArithmeticError):
        fit(before, EpochSeed(1), SnapshotCheckpoint(2, dirpath=str(tmp_path / "mine")), Kill(1), max_epochs=4)
    (tmp_path / "mine" / "snapshot-1.ckpt").unlink()
    resumed = SnapshotCheckpoint(2, dirpath=str(tmp_path / "mine"))
    fit(EpochSeed(1), resumed, max_epochs=4, ckpt_path=tmp_path / "8.ckpt")
    assert difference(*map(load_weights, (resumed.paths[0], unbroken.paths[0]))) == 0
    assert len(resumed.paths) == 2


# Bad input, and runs that end otherwise


def test_a_second_fit_needs_its_own_folder(tmp_path):
    save = SnapshotCheckpoint(2, dirpath=str(tmp_path))
    fit(save)
    module = ToyModule()
    with pytest.raises(ValueError, match=r"no snapshots of another run, got .* with snapshot-1.ckpt, snapshot-2.ckpt"):
        fit(save, module=module)
    assert module.global_step == 0
    for path in tmp_path.iterdir():
        path.unlink()
    fit(save)
    assert names(tmp_path) == ["snapshot-1.ckpt", "snapshot-2.ckpt"]


def test_an_early_stop_says_which_are_missing(tmp_path):
    save = SnapshotCheckpoint(4, dirpath=str(tmp_path))
    stop = EarlyStopping("val/loss", patience=1, restore_best=False)
    with pytest.warns(UserWarning, match=r"after 8 optimizer steps with 1 snapshots: 3 of 4 cycles.*\[10, 15, 20\]"):
        fit(stop, save, module=ScriptedModule([1, 2]), max_epochs=5)
    assert names(tmp_path) == ["snapshot-1.ckpt"]


def test_a_trial_of_a_few_batches_writes_nothing(tmp_path):
    fit(SnapshotCheckpoint(9, dirpath=str(tmp_path)), fast_dev_run=2)
    assert names(tmp_path) == []


def test_what_a_killed_run_left_half_written_is_swept_up(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    mine = temporary(tmp_path / "snapshot-9.ckpt")
    theirs = mine.with_name(mine.name.replace(str(os.getpid()), gone.stdout.strip()))
    theirs.write_bytes(b"half")
    fit(SnapshotCheckpoint(1, dirpath=str(tmp_path)))
    assert names(tmp_path) == ["snapshot-1.ckpt"]


@pytest.mark.parametrize("cycles", [0, -2, 2.0, None])
def test_bad_cycles(cycles):
    with pytest.raises((TypeError, ValueError), match=r"`cycles` must be (an integer|at least 1), got"):
        SnapshotCheckpoint(cycles)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(toy_data())


class TwoOptimizers(ToyModule):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]


@pytest.mark.parametrize(
    ("cycles", "options", "message"),
    [
        (9, {}, "`cycles` must be from 1 to the number of optimizer steps, 8, got 9"),
        (2, {"data": DataLoader(Stream(), 8)}, "must divide a known number of optimizer steps"),
        (2, {"max_epochs": -1}, "must divide a known number of optimizer steps"),
        (2, {"module": TwoOptimizers()}, "must have one optimizer, whose steps are counted, got 2"),
    ],
)
def test_unfit_trainings_show_before_training(cycles, options, message):
    module = options.pop("module", ToyModule())
    with pytest.raises(ValueError, match=message):
        fit(SnapshotCheckpoint(cycles), module=module, **options)
    assert module.global_step == 0


def test_remote_folders_are_refused():
    with pytest.raises(ValueError, match="`dirpath` must be a local folder"):
        fit(SnapshotCheckpoint(2, dirpath="memory://folder"))
