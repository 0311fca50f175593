"""The file with the best configuration: LightningCLI builds the same module from it."""

import pytest
import torch
import yaml

from lightning_trainingkit import DigitsDataModule, EarlyStopping, ImageClassifier
from lightning_trainingkit.tuning.searches.cli_config import cli_sections, left_out, write_config
from lightning_trainingkit.tuning.searches.search_settings import training_of
from lightning_trainingkit.tuning.trials.source import make_source
from tests.toy import ToyModule


def written(path, source, params):
    options = {"epochs": 40, "monitor": "val/loss", "mode": "min", "seed": 3, "trainer_options": {"precision": 32}}
    command = write_config(path, cli_sections(source), params, **options)
    assert path.read_text().startswith(f"# {command}\n")
    return yaml.safe_load(path.read_text())


class OwnNet(ToyModule):
    def __init__(self, net: torch.Tensor, lr: float = 0.1):
        super().__init__(lr)
        self.save_hyperparameters()


def build(lr: float = 0.1):
    return ToyModule(lr)


def test_given_arguments_and_the_best_values_stand_in_the_file(tmp_path):
    module = ImageClassifier("small_resnet", 10, model_options={"in_channels": 1}, optimizer="SGD")
    found = written(
        tmp_path / "best.yaml",
        make_source(module, DigitsDataModule(batch_size=16)),
        {"lr": 0.02, "data.batch_size": 64},
    )
    assert found["model"]["class_path"] == "lightning_trainingkit.modules.image_classifier.ImageClassifier"
    assert found["model"]["init_args"] == {
        "model": "small_resnet",
        "num_classes": 10,
        "model_options": {"in_channels": 1},
        "optimizer": "SGD",
        "lr": 0.02,
    }
    assert found["data"]["init_args"] == {"batch_size": 64}
    assert (found["seed_everything"], found["trainer"]["max_epochs"], found["trainer"]["precision"]) == (3, 40, 32)


def test_lightning_cli_builds_the_module(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    written(tmp_path / "best.yaml", make_source(ImageClassifier("small_resnet", 10), DigitsDataModule), {"lr": 0.02})
    from lightning.pytorch.cli import LightningCLI

    cli = LightningCLI(args=["--config", str(tmp_path / "best.yaml")], run=False, save_config_callback=None)
    assert isinstance(cli.model, ImageClassifier)
    assert cli.model.hparams["lr"] == 0.02
    assert cli.trainer.max_epochs == 40


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (lambda: build, "made by a function"),
        (lambda: OwnNet(net=torch.ones(1)), "arguments that YAML does not hold: net"),
    ],
)
def test_what_yaml_does_not_hold_is_said(tmp_path, module, why):
    sections = cli_sections(make_source(module(), DigitsDataModule))
    with pytest.raises(ValueError, match=f"`module` must be a class with plain arguments, got none: .*{why}"):
        write_config(
            tmp_path / "x.yaml", sections, {}, epochs=1, monitor="val/loss", mode="min", seed=0, trainer_options={}
        )
    assert not (tmp_path / "x.yaml").exists()


def test_a_source_may_bring_its_sections():
    source = make_source(ToyModule, DigitsDataModule)
    source.sections = lambda: {"model": {"class_path": "my.Module"}}
    assert cli_sections(source) == {"model": {"class_path": "my.Module"}}


def test_callbacks_and_objects_that_the_file_leaves_out_are_named():
    source = make_source(ToyModule, DigitsDataModule)
    settings = training_of(source, {"strategy": object(), "limit_val_batches": 2}, [EarlyStopping("val/loss")])
    assert settings["trainer_options"] == {"limit_val_batches": 2}
    assert left_out(settings) == (
        "A configuration file trains without callbacks of the search: EarlyStopping, and without options of the "
        "Trainer that are objects: strategy. Add them to the file."
    )
    assert left_out(training_of(source, {"limit_val_batches": 2}, [])) == ""
