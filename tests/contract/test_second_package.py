"""``import pytorch_lightning`` is another tree of classes than ``import lightning``: the kit follows the project's."""

import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

from lightning_trainingkit import DigitsDataModule
from tests.contract.table import CALLBACKS, CASES, build, write_members
from tests.process import ROOT, environment
from tests.toy import toy_loaders


def python(*arguments, **variables):
    env = environment(PYTHONPATH=str(ROOT), **variables)
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_each_callback_fits_resumes_and_tests_there():
    assert python(Path(__file__).with_name("second_package.py")) == list(CASES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imports", "variable", "package"),
    [
        ("pytorch_lightning", {}, "pytorch_lightning"),
        ("lightning", {}, "lightning.pytorch"),
        ("lightning, pytorch_lightning", {}, "lightning.pytorch"),
        ("lightning", {"TRAININGKIT_LIGHTNING": "pytorch_lightning"}, "pytorch_lightning"),
    ],
)
def test_the_package_that_was_imported_alone_or_is_named(imports, variable, package):
    code = f"import {imports}, lightning_trainingkit as kit; print(kit.EpochSeed.__mro__[1].__module__)"
    assert python("-c", code, **variable) == [f"{package}.callbacks.callback"]


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_trainer_of_the_other_package_is_refused_with_the_cure(name, tmp_path):
    write_members(tmp_path)
    trainer = pl.Trainer(
        callbacks=build(name), max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu"
    )
    with pytest.raises(TypeError, match=rf"beside {name}, got one of pytorch_lightning.*TRAININGKIT_LIGHTNING="):
        trainer.fit(BoringModel(), *toy_loaders())


def test_data_for_a_trainer_of_the_other_package_are_refused():
    assert issubclass(DigitsDataModule, L.LightningDataModule)
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(TypeError, match="beside DigitsDataModule, got one of pytorch_lightning"):
        trainer.fit(BoringModel(), datamodule=DigitsDataModule())
