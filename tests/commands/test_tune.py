"""``trainingkit tune``: what it refuses, what it builds, and the search of a project that knows nothing of the kit."""

import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from lightning_trainingkit.cli import main
from tests.commands.conftest import PLAIN
from tests.process import ROOT, environment

MODULE, DATA = "plain_project.py:MyModule", "plain_project.py:MyData"
GOOD = (MODULE, "--data", DATA, "--module.classes", 3)
DICTS = """

class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        y = index % 3
        return {"image": torch.nn.functional.one_hot(torch.tensor(y), 4) + 0.1 * (index % 7), "label": y}


class MyDicts(MyData):
    def train_dataloader(self):
        return DataLoader(Pairs(), self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Pairs(), 48)


class OnDicts(MyModule):
    def training_step(self, batch, batch_idx):
        return super().training_step((batch["image"], batch["label"]), batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))
"""


@pytest.fixture
def tune(project, capsys):
    """Run ``trainingkit tune`` in this process. Returns the exit code and what it said."""

    def run(*arguments):
        code = main(["tune", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "`MODULE:CLASS` must be given, got none."),
        ((MODULE, "--data", DATA), "`--module.classes` must be given, since MyModule has no default"),
        (
            (MODULE, "--data", "plain_project.py:my_loader", "--module.classes", 3),
            "`--data` must be a LightningDataModule of lightning.pytorch, got <function my_loader",
        ),
        ((*GOOD, "--space", "none.yaml"), "`--space` must be a YAML file that exists, got none.yaml."),
        ((*GOOD, "--space", "unknown.yaml"), "got 'depth'. There are: "),
        ((*GOOD, "--space", "reversed.yaml"), "reversed"),
        ((*GOOD, "--space", "type.yaml"), "Expected a <class 'int'>. Got value: 1.5"),
        (
            (*GOOD, "--space", "empty.yaml"),
            "`empty.yaml` must hold hyperparameters by name, got nothing. Write NAME: {low",
        ),
        ((*GOOD, "--trials", 0), "`max_trials` must be at least 1, got 0."),
        ((*GOOD, "--trainer.num_nodes", 2), "must not hold num_nodes, got 2. A trial runs on one machine."),
        (
            (*GOOD, "--monitor", "val/acc"),
            "`--mode` must be given for 'val/acc', which by its name is a score, got none. Add --mode max",
        ),
        (("--report", "none"), "`storage` must be where the search is, got runs/none/study.log, which does not"),
        (("--report", "none", MODULE), "`--report` must stand without a module"),
    ],
)
def test_bad_input_is_said_in_a_line_before_any_training(tune, project, arguments, words):
    (project / "unknown.yaml").write_text("depth: [1, 2]\n")
    (project / "reversed.yaml").write_text("lr: {low: 1.0, high: 0.1}\n")
    (project / "empty.yaml").touch()
    (project / "type.yaml").write_text("data.batch_size: [1.5, 2.5]\n")
    code, out, err = tune(*arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1
    assert not [*project.rglob("trial-*"), *project.rglob("study.log")]


def test_a_trial_builds_the_classes_with_its_hyperparameters_and_its_own_seed(project):
    from lightning_trainingkit.commands.tune_source import command_source
    from lightning_trainingkit.tuning import Space

    (project / "run.yaml").write_text("seed_everything: 7\nmodel:\n  width: 16\n")
    space = Space({"classes": [3, 4], "lr": {"low": 0.01, "high": 1.0}, "data.batch_size": [8, 32]})
    source, built = command_source(MODULE, DATA, ["--module.lr", "0.2"], [Path("run.yaml")], space)
    assert built.trainer_options == {}
    assert source.describe == "MyModule on MyData"
    assert source.given == {"classes": 3, "lr": 0.2, "width": 16, "data.batch_size": 16}  # values before the search
    assert source.names == ("classes", "lr", "width", "data.batch_size")
    assert source.sections["model"]["class_path"] == "plain_project.MyModule"
    sent = pickle.loads(pickle.dumps(source))
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        module, data = sent({"classes": 4, "lr": 0.7, "data.batch_size": 32})
        weights.append(module.net[0].weight.detach().clone())
    assert (module.hparams.classes, module.hparams.lr, module.hparams.width, data.batch_size) == (4, 0.7, 16, 32)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_steps_1_to_3_run_on_the_defaults_and_on_the_middle_where_there_is_none(project):
    from lightning_trainingkit.commands.tune_source import command_source
    from lightning_trainingkit.tuning import Space

    space = Space({"classes": {"low": 2, "high": 10, "integer": True}, "lr": {"low": 1e-6, "high": 1.0, "log": True}})
    source, _ = command_source(MODULE, DATA, [], [], space)
    assert (source.given["classes"], source.given["lr"]) == (6, 0.1)


@pytest.mark.slow
def test_a_file_in_another_folder_with_pytorch_lightning_and_dict_batches_is_tuned_reported_and_trained(project, tune):
    (project / "theirs.py").write_text(PLAIN.format(package="pytorch_lightning") + DICTS)
    here = project / "elsewhere"
    here.mkdir()
    command = [sys.executable, "-m", "lightning_trainingkit.cli", "tune", "../theirs.py:OnDicts"]
    command += ["--data", "../theirs.py:MyDicts", "--module.classes", "3", "--monitor", "val_loss"]
    command += ["--trials", "4", "--epochs", "1", "--trainer.accelerator", "cpu", "--wandb", "disabled"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(PYTHONWARNINGS="ignore", PYTHONPATH=str(ROOT), PATH=path)
    run = partial(subprocess.run, cwd=here, env=env, capture_output=True, text=True, check=False)
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Step 4: coarse search: " in done.stdout
    written = yaml.safe_load((here / "runs/OnDicts/best.yaml").read_text())
    assert written["model"]["class_path"] == "theirs.OnDicts"
    assert written["model"]["init_args"]["classes"] == 3
    report = (here / "runs/OnDicts/report.md").read_text()
    (train,) = re.findall(r"```bash\n(.*)\n```", report)
    assert train in done.stdout
    assert f"PYTHONPATH={project}:$PYTHONPATH python" in train
    assert "from pytorch_lightning.cli import LightningCLI" in train
    trained = run(train, shell=True)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert [*here.rglob("best.json")]
    code, out, _ = tune("--report", "OnDicts", "--output", here / "runs/OnDicts")
    assert code == 0
    assert out.startswith("# OnDicts on MyDicts\n")
    assert "| 4: coarse search |" in out
