"""Every block of code in the README is run: here, by the recipe's own tests, or by .ci/run where it is marked."""

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from tests import process
from tests.readme import BLOCKS, RUN_BY_CI, blocks, run_block


def test_every_block_says_its_language_and_ci_runs_what_is_marked_for_it():
    assert {language for _, language, _ in BLOCKS} == {"bash", "python", "yaml"}
    script = (process.ROOT / ".ci" / "run").read_text()
    marked = [mark for mark, _, _ in BLOCKS if mark]
    assert sorted(marked) == sorted(RUN_BY_CI)
    for mark in marked:
        assert f"readme {mark}" in script


@pytest.mark.parametrize("text", blocks("python"))
def test_python(text, tmp_path):
    process.run("-c", text, folder=tmp_path, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for text in blocks("bash") if "quickstart" not in text])  # see test_quickstart
def test_shell(text, tmp_path):
    run_block(text, tmp_path)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml(text, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    config = yaml.safe_load(text) | {"seed_everything": False}
    config["trainer"] |= {"logger": False, "accelerator": "cpu"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    from lightning_trainingkit import DigitsDataModule, ImageClassifier

    arguments = ["--config", str(tmp_path / "config.yaml"), "--model.model=small_resnet", "--model.num_classes=10"]
    cli = LightningCLI(ImageClassifier, DigitsDataModule, run=False, save_config_callback=None, args=arguments)
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {entry["class_path"].split(".")[-1] for entry in config["trainer"]["callbacks"]} <= names
