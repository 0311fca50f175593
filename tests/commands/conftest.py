"""A plain Lightning file outside of the repository, and steps that answer at once."""

import sys

import pytest

from lightning_trainingkit import experiments, tuning
from lightning_trainingkit.cli import main

PLAIN = """
import {package} as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class MyModule(L.LightningModule):
    def __init__(self, classes: int, lr: float = 0.1, *, width=8):
        super().__init__()
        self.save_hyperparameters()
        if lr < 0:
            raise RuntimeError("negative rate")
        self.net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, classes))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)


class MyData(L.LightningDataModule):
    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        y = torch.arange(96) % 3
        x = torch.nn.functional.one_hot(y, 4) + 0.3 * torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, y), self.batch_size, shuffle=True)


def my_loader():
    return MyData(32).train_dataloader()


def broken_loader():
    raise OSError("disk on fire")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the file ``plain_project.py``, which is the working folder of the test."""
    (tmp_path / "plain_project.py").write_text(PLAIN.format(package="lightning"))
    (tmp_path / "broken_project.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(experiments, "quiet", lambda: None)
    yield tmp_path
    sys.modules.pop("plain_project", None)


@pytest.fixture
def check(project, capsys):
    """Run ``trainingkit check`` in this process. Returns the exit code and what it said."""

    def run(*arguments):
        code = main(["check", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def steps(monkeypatch):
    """Replace the three steps: each keeps its arguments, and answers with the verdict of this dict."""
    verdicts = {"initial_loss": "pass", "small_sample": "warn", "learning_rate": "pass"}
    calls = {}

    def fake(name):
        def step(module, data, **options):
            calls[name] = (module, data, options)
            if verdicts[name] == "raise":
                raise IndexError("Target 3 is out of bounds.")
            return tuning.Verdict(
                step=name, verdict=verdicts[name], message=f"Measured {name}.", advice="Do [that]: `lr=0.1`.", value=2.0
            )

        return step

    names = ("check_initial_loss", "overfit_small_sample", "find_learning_rate")
    for function, name in zip(names, verdicts, strict=True):
        monkeypatch.setattr(tuning, function, fake(name), raising=False)
    return verdicts, calls
