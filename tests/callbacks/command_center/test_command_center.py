import copy
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lightning as L
import pytest
import torch
import wandb
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit.callbacks.command_center.command_center import CommandCenter
from lightning_trainingkit.callbacks.command_center.run import say_ignored
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.dashboards.secret import hide
from tests import process
from tests.dashboards.made_secrets import drawn

ACC = [0.1, 0.9, 0.5]
LOSS = [3.0, 1.0, 2.0]
WANDB = Path(sys.executable).with_name("wandb")


class Spy(L.LightningModule):
    """Logs a rise and a fall, so that the best value is neither the first nor the last."""

    def __init__(self, width: int = 3, crash_in: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(2, width)
        self.calls: list[str] = []

    def training_step(self, batch, batch_idx):
        self.calls.append("train")
        if self.hparams.crash_in == "train" and batch_idx == 1:
            raise RuntimeError("crash")
        loss = self.net(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=True)
        return loss

    def validation_step(self, batch, batch_idx):
        if self.hparams.crash_in == "sanity":
            raise RuntimeError("crash")
        if not self.trainer.sanity_checking:
            acc, loss = ACC[self.current_epoch % 3], LOSS[self.current_epoch % 3]
            self.log_dict({"val/acc": acc, "val/loss": loss, "val/f1": acc, "val/other": acc})

    def test_step(self, batch, batch_idx):
        self.log("test/acc", 0.7)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.5)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5)]


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()

    def loader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=self.hparams.batch_size)

    train_dataloader = val_dataloader = test_dataloader = loader


def make_trainer(root, *callbacks, **kwargs) -> L.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"logger": False, "max_epochs": 3, "log_every_n_steps": 1, "accelerator": "cpu", **quiet, **kwargs}
    return L.Trainer(default_root_dir=root, callbacks=list(callbacks), **settings)


def files(root: Path) -> list[Path]:
    return sorted(root.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime_ns)


def summary(path: Path) -> dict:
    command = [WANDB, "leet", "inspect", "--summary", "--json", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def records(path: Path) -> list[dict]:
    command = [WANDB, "leet", "inspect", "--json", path]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def lost(warned: pytest.WarningsRecorder) -> int:
    return sum("W&B failed" in str(each.message) for each in warned)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One fit and a test, then one that crashes while training and one in its sanity check: the files in order."""
    root = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.delenv("WANDB_MODE", raising=False)
        center = CommandCenter("widths", tags=["blue"], best={"val/f1": "max"})
        stop = [EarlyStopping("val/other", mode="max", patience=7), EarlyStopping("val/loss", patience=9)]
        trainer = make_trainer(root, center, *stop, gradient_clip_val=0.5)
        trainer.fit(Spy(), datamodule=Data())
        trainer.test(Spy(), datamodule=Data(), verbose=False)
        open_after_test = summary(files(root)[0])["exit_code"] is None
        for stage in ("train", "sanity"):
            trainer.fit_loop.max_epochs = 9
            with pytest.raises(RuntimeError, match="crash"):
                trainer.fit(Spy(crash_in=stage), datamodule=Data())
            trainer.logger.log_metrics({"after": 1.0})
        trainer.logger.log_hyperparams({"after": 1.0})
    return root, trainer, open_after_test


@pytest.fixture(scope="module")
def first(recorded):
    return summary(files(recorded[0])[0])


def test_each_fit_is_a_run_of_its_own_and_a_crash_ends_it_as_failed(recorded, first):
    root, trainer, open_after_test = recorded
    assert len(trainer.loggers) == 1
    assert open_after_test
    assert len(files(root)) == 3
    assert (first["state"], first["exit_code"], first["project"]) == ("finished", 0, "lightning_trainingkit")
    assert first["tags"] == ["blue"]
    for crashed in files(root)[1:]:
        read = summary(crashed)
        assert (read["state"], read["exit_code"]) == ("failed", 1)
        assert read["config"]["optimizers"][0]["name"] == "SGD"
        assert "after" not in read["summary"]


def test_summary_holds_the_best(first):
    assert first["summary"]["val/acc"] == {"max": pytest.approx(0.9)}
    assert first["summary"]["val/loss"] == {"min": 1.0}  # also the monitor of an EarlyStopping
    assert first["summary"]["val/other"] == {"max": pytest.approx(0.9)}  # the monitor of another
    assert first["summary"]["val/f1"] == {"max": pytest.approx(0.9)}  # asked for
    assert first["summary"]["test/acc"] == pytest.approx(0.7)  # logged after the fit, into its run


def test_config_says_how_it_was_trained(first):
    config = first["config"]
    assert (config["width"], config["batch_size"], config["model"]) == (3, 4, "Spy")
    assert config["trainer"]["max_epochs"] == 3
    assert config["trainer"]["gradient_clip_val"] == 0.5
    assert config["trainer"]["batch_size"] == 4
    # What was asked for, not what the scheduler's warm-up has made of it.
    assert config["optimizers"][0].items() >= {"name": "SGD", "lr": 0.1, "momentum": 0.5}.items()
    assert config["schedulers"] == ["LinearLR"]
    assert config["callbacks"]["EarlyStopping"].items() >= {"monitor": "val/other", "patience": 7}.items()
    assert config["callbacks"]["EarlyStopping-2"].items() >= {"monitor": "val/loss", "patience": 9}.items()
    assert config["callbacks"]["CommandCenter"]["best"] == {"val/f1": "max"}
    packages = {"python", "lightning_trainingkit", "lightning", "torch", "torchvision", "torchmetrics", "wandb"}
    assert config["versions"].keys() == packages


def test_curves_are_drawn_over_the_trainers_steps(recorded):
    history = [json.dumps(record) for record in records(files(recorded[0])[0]) if record["type"] == "history"]
    assert sum("val/acc" in row and "trainer/global_step" in row for row in history) == 3
    assert sum("train/loss" in row and "trainer/global_step" in row for row in history) == 6


def test_users_logger_is_used_and_gets_a_run_per_fit(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, mode="offline", project="mine", group="g", id="given")
    trainer = make_trainer(tmp_path, CommandCenter("g"), logger=[CSVLogger(tmp_path), logger], max_epochs=1)
    trainer.fit(Spy(), datamodule=Data())
    given = logger.version
    trainer.fit(Spy(), datamodule=Data())
    wandb.teardown()
    assert len(trainer.loggers) == 2
    assert given == "given" != logger.version
    assert [summary(path)["project"] for path in files(tmp_path)] == ["mine", "mine"]
    assert all(summary(path)["config"]["versions"] for path in files(tmp_path))


def test_users_logger_in_another_group_is_an_error(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, mode="offline", group="theirs")
    with pytest.raises(ValueError, match=r"`group` must be .* 'theirs', got 'ours'.*WandbLogger\(group='ours'\)"):
        make_trainer(tmp_path, CommandCenter("ours"), logger=logger).fit(Spy(), datamodule=Data())
    with pytest.raises(ValueError, match="`job_type` must be"):
        make_trainer(tmp_path, CommandCenter(job_type="tta"), logger=logger).fit(Spy(), datamodule=Data())
    logger.experiment.finish()


def test_training_goes_on_when_the_run_cannot_be_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # on a terminal, W&B would ask
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "online")  # without an account: W&B raises before it asks the network
    trainer = make_trainer(tmp_path, CommandCenter(), max_epochs=1)
    model = Spy()
    with pytest.warns(UserWarning, match="W&B failed with UsageError: No API key") as warned:
        trainer.fit(model, datamodule=Data())
    assert lost(warned) == 1
    assert model.calls == ["train"] * 2
    assert trainer.test(model, datamodule=Data(), verbose=False) == [{"test/acc": pytest.approx(0.7)}]


SERVICE_DIES = """
import os, signal, subprocess, sys, warnings
sys.path.insert(0, {tests!r})
from test_command_center import CommandCenter, Data, L, Spy, make_trainer

class Kill(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pid = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True).stdout
            os.kill(int(pid), signal.SIGKILL)

class ByHand(Spy):
    def training_step(self, batch, batch_idx):
        self.logger.experiment.log({{"by hand": 1.0}})
        if self.current_epoch == 2:
            self.logger.experiment.summary["by hand"] = 1.0
        return super().training_step(batch, batch_idx)

with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    trainer = make_trainer({root!r}, CommandCenter(), Kill())
    model = ByHand()
    trainer.fit(model, datamodule=Data())
    trainer.test(model, datamodule=Data(), verbose=False)
print(sum("W&B failed with" in str(each.message) for each in seen), len(model.calls), trainer.state.finished)
"""

TWO_RANKS = """
import sys
import threading
sys.path.insert(0, {tests!r})
from test_command_center import CommandCenter, Data, Spy, make_trainer
trainer = make_trainer({root!r}, CommandCenter("ranks"), strategy="ddp_spawn", devices=2, max_epochs=1)
trainer.fit(Spy(), datamodule=Data(2))
"""


def run_script(script: str, root: Path) -> str:
    script = script.format(tests=str(Path(__file__).parent), root=str(root))
    return process.run("-c", script).stdout


def test_training_goes_on_when_the_service_dies(tmp_path):
    # In a process of its own: W&B does not start a second service in this one.
    assert run_script(SERVICE_DIES, tmp_path).splitlines()[-1] == "1 6 True"


@pytest.mark.slow
def test_two_ranks_make_one_run(tmp_path):
    run_script(TWO_RANKS, tmp_path)
    (path,) = files(tmp_path)
    read = summary(path)
    assert (read["exit_code"], read["config"]["trainer"]["world_size"]) == (0, 2)


@pytest.mark.parametrize(("method", "times"), [("log", 2), ("define_metric", 2), ("finish", 1)])
def test_training_goes_on_when_the_run_raises(tmp_path, monkeypatch, method, times):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    def fit_twice():
        for trainer.fit_loop.max_epochs in (1, 2):
            trainer.fit(model, datamodule=Data())

    trainer = make_trainer(tmp_path, CommandCenter())
    model = Spy()
    with monkeypatch.context() as patch:
        # The real run cannot be made to raise at will.
        patch.setattr(wandb.Run, method, fail)
        with pytest.warns(UserWarning, match="W&B failed with OSError: disk full") as warned:
            fit_twice()
    assert lost(warned) == times  # once per fit; the first run is only finished by the second fit
    assert model.calls == ["train"] * 4
    assert "log_metrics" not in vars(trainer.logger)  # the guard is gone


def test_evaluation_without_a_fit_is_left_alone(tmp_path):
    trainer = make_trainer(tmp_path, CommandCenter())
    trainer.test(Spy(), datamodule=Data(), verbose=False)
    make_trainer(tmp_path, CommandCenter(), fast_dev_run=True).fit(Spy(), datamodule=Data())
    assert trainer.loggers == []
    assert not (tmp_path / "wandb").exists()


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from test_command_center import CommandCenter, Data, L, Spy, make_trainer

class Wait(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            time.sleep(600)

trainer = make_trainer({root!r}, CommandCenter("g", name="doomed"), Wait())
trainer.fit(Spy(), datamodule=Data())
"""


@pytest.mark.slow
def test_a_killed_run_is_told_from_one_that_goes_on(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    doomed = process.Process("-c", script)
    trainer = make_trainer(tmp_path, CommandCenter("g", name="ended"), max_epochs=1)
    trainer.fit(Spy(), datamodule=Data())
    end = time.monotonic() + 120
    while sum(len(run.curves["val/acc"].values) == 2 for run in gather([tmp_path])[0] if "val/acc" in run.curves) < 1:
        assert time.monotonic() < end
        time.sleep(1)  # W&B writes its rows every 15 seconds
    assert {run.name: run.state for run in gather([tmp_path])[0]} == {"doomed": "running", "ended": "finished"}
    os.kill(doomed.pid, signal.SIGKILL)
    assert doomed.wait().returncode == -signal.SIGKILL
    runs, skipped = gather([tmp_path])
    assert skipped == {}
    assert {run.name: run.state for run in runs} == {"doomed": "killed", "ended": "finished"}
    killed = next(run for run in runs if run.name == "doomed")
    assert len(killed.curves["val/acc"].values) == 2  # what was flushed
    trainer.callbacks[0].finish()
    assert {run.name: run.state for run in gather([tmp_path])[0]}["ended"] == "finished"


def test_the_page_is_written_at_the_end_of_the_fit_and_of_the_run(tmp_path, monkeypatch):
    page = tmp_path / "pages" / "center.html"
    center = CommandCenter("g", name="first", page=str(page))
    make_trainer(tmp_path, center).fit(Spy(), datamodule=Data())
    assert page.is_file()  # W&B has written nothing yet of a fit as short as this
    center.finish()
    text = page.read_text(encoding="utf-8")
    assert '"state":"finished"' in text
    assert '"val/acc"' in text
    monkeypatch.setattr("lightning_trainingkit.callbacks.command_center.arguments.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"lightning-trainingkit\[dashboard\]"):
        CommandCenter(page="x.html")


def test_pickles_and_copies_between_fits(recorded):
    center = recorded[1].callbacks[0]
    for twin in (pickle.loads(pickle.dumps(center)), copy.deepcopy(center)):
        assert (twin.group, twin.tags, twin.best) == ("widths", ["blue"], {"val/f1": "max"})


def test_built_from_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train"])  # LightningCLI warns of arguments in both places
    (tmp_path / "config.yaml").write_text(f"""
seed_everything: false
trainer:
  logger: false
  default_root_dir: {tmp_path}
  callbacks:
    - class_path: {CommandCenter.__module__}.CommandCenter
      init_args: {{group: g, tags: [a, b], best: {{val/f1: max}}}}
""")
    args = ["--config", str(tmp_path / "config.yaml")]
    cli = LightningCLI(Spy, Data, run=False, args=args, save_config_callback=None)
    center = next(each for each in cli.trainer.callbacks if isinstance(each, CommandCenter))
    assert (center.group, list(center.tags), center.best) == ("g", ["a", "b"], {"val/f1": "max"})


def test_a_run_has_the_name_that_was_asked_for(tmp_path):
    center = CommandCenter("g", name="lr=0.1", best={"val/f1": "max"})
    make_trainer(tmp_path, center, max_epochs=1).fit(Spy(), datamodule=Data())
    center.finish()
    assert summary(files(tmp_path)[0])["name"] == "lr=0.1"
    assert CommandCenter(best={"val/f1": "max"}).name is None


def test_a_disabled_run_makes_no_page(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    center = CommandCenter(page=str(tmp_path / "page.html"))
    make_trainer(tmp_path, center, max_epochs=1).fit(Spy(), datamodule=Data())
    center.finish()
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_no_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="The page must be a file, got the folder"):
        CommandCenter(page=str(tmp_path))


def test_finish_ends_the_run_and_what_comes_after_goes_nowhere_or_into_the_next(tmp_path):
    beating = set(threading.enumerate())
    center = CommandCenter("g", name="first")
    center.finish()  # there is nothing yet
    trainer = make_trainer(tmp_path, center, max_epochs=1)
    model = Spy()
    trainer.fit(model, datamodule=Data())
    center.finish()
    center.finish()
    assert not [each for each in set(threading.enumerate()) - beating if each.name == "heartbeat"]
    (first,) = files(tmp_path)
    before = summary(first)
    assert before["state"] == "finished"
    trainer.test(model, datamodule=Data(), verbose=False)
    assert summary(first) == before
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, datamodule=Data())
    center.finish()
    assert [run.state for run in gather([tmp_path])[0]] == ["finished", "finished"]
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, datamodule=Data())
    center.finish(1)
    assert [run.state for run in gather([tmp_path])[0]] == ["finished", "finished", "failed"]


def test_rejects_what_it_cannot_mean():
    with pytest.raises(ValueError, match=r"`best\['val/acc'\]` must be one of 'min', 'max', got 'highest'"):
        CommandCenter(best={"val/acc": "highest"})
    with pytest.raises(TypeError, match="`tags` must be a list of strings, got 'a'"):
        CommandCenter(tags="a")
    with pytest.raises(
        ValueError, match=r"`tags` must have 1 to 64 characters each, got 65 in 'xxx.*'\. Change it: W&B would drop"
    ):
        CommandCenter(tags=["short", "x" * 65])
    with pytest.raises(ValueError, match=r"`tags` must have 1 to 64 .* got 0"):
        CommandCenter(tags=[""])
    assert len(CommandCenter(tags=["x" * 64, "gh" + "p_" + "x" * 90]).tags) == 2  # a secret that is hidden is short


def test_refuses_a_second_center(tmp_path):
    with pytest.raises(ValueError, match="`callbacks` must hold one CommandCenter, got 2"):
        make_trainer(tmp_path, CommandCenter("a"), CommandCenter("b")).fit(Spy(), datamodule=Data())


class Notifier(L.Callback):
    """A user's own callback, whose arguments become settings of the run."""

    def __init__(self, token, headers):
        self.token, self.headers = token, headers


class Careless(Spy):
    """Has secrets in hyperparameters and metric names, and writes more of them to the run by hand."""

    def __init__(self, secrets):
        super().__init__()
        self.secrets = secrets
        self.hparams.update({"hf_token": secrets[0], "url": f"https://x.example/?token={secrets[1]}", secrets[2]: 1})
        self.save_hyperparameters(self.hparams)

    def on_train_start(self):
        self.log(f"val/{self.secrets[3]}", 1.0)
        run = self.logger.experiment
        run.config["password"] = self.secrets[4]
        run.config.update({"argv": ["--auth", self.secrets[5]]})
        run.summary[self.secrets[6]] = 1
        run.summary["text"] = self.secrets[7]
        run.log({"note": f"Bearer {self.secrets[8]}", "train/seen": 3})
        run.name, run.notes = f"a {self.secrets[9]}", self.secrets[10]
        run.tags = (*run.tags, self.secrets[11])
        run.define_metric(self.secrets[12], summary="max")


def test_no_secret_goes_into_the_run(tmp_path, monkeypatch):
    secrets = ["gh" + "p_" + drawn(36) for _ in range(24)]
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--lr", "0.1", "--password", "hunter2x", f"--url=a?sig={secrets[13]}"]
    )
    for variable, place in (("NOTES", 14), ("PROJECT", 20), ("TAGS", 21)):
        monkeypatch.setenv(f"WANDB_{variable}", secrets[place])
    center = CommandCenter(
        f"g {secrets[15]}", f"j {secrets[16]}", tags=[secrets[17]], name=f"n {secrets[18]}", best={secrets[19]: "max"}
    )
    notifier = Notifier(secrets[22], {"X-Any": "hunter3x", "more": [secrets[23]]})
    model = Careless(secrets)
    make_trainer(tmp_path, center, notifier, max_epochs=1).fit(model, datamodule=Data())
    center.finish()
    assert model.hparams.hf_token == secrets[0]  # in training nothing is hidden
    (path,) = files(tmp_path)
    found = records(path)
    text = json.dumps(found)
    assert not [place for place, secret in enumerate(secrets) if secret in text]
    assert "hunter" not in text
    read = summary(path)
    assert (read["project"], read["name"]) == (hide(secrets[20]), hide(f"a {secrets[9]}"))
    assert sorted(read["tags"]) == sorted(hide(secrets[place]) for place in (11, 17, 21))
    assert read["config"]["hf_token"] == hide(secrets[0])
    headers = {"X-Any": "***", "more": [hide(secrets[23])]}
    assert read["config"]["callbacks"]["Notifier"] == {"token": hide(secrets[22]), "headers": headers}
    assert read["summary"][hide(f"val/{secrets[3]}")] == 1.0
    assert read["summary"]["train/seen"] == 3


def test_w_and_b_records_the_command_line_unless_it_or_a_folder_holds_a_secret(tmp_path, monkeypatch):
    def recorded(*folders):
        root = tmp_path.joinpath(*folders)
        center = CommandCenter()
        make_trainer(root, center, max_epochs=1).fit(Spy(), datamodule=Data())
        center.finish()
        return [each["environment"] for each in records(files(root)[0]) if each["type"] == "environment"]

    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1"])
    assert recorded("a")[0]["args"] == ["--lr", "0.1"]
    assert recorded("b", "gh" + "p_" + drawn(36)) == []
    monkeypatch.setattr(sys, "argv", ["train.py", "--password", "hunter2x"])
    assert recorded("c") == []


def test_no_secret_goes_into_the_run_of_the_users_logger_after_it_was_opened(tmp_path):
    secrets = ["gh" + "p_" + drawn(36) for _ in range(13)]
    center, logger = CommandCenter(), WandbLogger(save_dir=tmp_path, mode="offline", notes="mine", tags=["mine"])
    make_trainer(tmp_path, center, logger=logger, max_epochs=1).fit(Careless(secrets), datamodule=Data())
    center.finish()
    text = json.dumps(records(files(tmp_path)[0]))
    assert not [place for place, secret in enumerate(secrets) if secret in text]


class Pictures(Spy):
    def on_train_epoch_end(self):
        for logger in self.loggers:
            logger.experiment.add_image("x", torch.zeros(3, 4, 4), self.current_epoch)
            logger.experiment.flush()
        assert not hasattr(self.loggers[0].experiment, "no_such_method")


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_module_that_calls_tensorboards_methods_trains_and_a_line_says_so_once(tmp_path, monkeypatch, caplog, mode):
    say_ignored.cache_clear()
    monkeypatch.setenv("WANDB_MODE", mode)
    center = CommandCenter()
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, center, max_epochs=2).fit(Pictures(), datamodule=Data())
    center.finish()
    assert caplog.text.count("A W&B run has none of TensorBoard's methods") == 1


WITHOUT_FINISH = """
import sys
sys.path.insert(0, {tests!r})
from test_command_center import CommandCenter, Data, Spy, make_trainer

for n in range(4):
    make_trainer({root!r}, CommandCenter(page={root!r} + "/page.html"), max_epochs=1).fit(Spy(), datamodule=Data())
"""


@pytest.mark.slow
def test_the_page_is_whole_after_a_script_that_never_calls_finish(tmp_path):
    run_script(WITHOUT_FINISH, tmp_path)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'"counted":"([^"]*)"', text) == ["4 runs (4 finished)"]
