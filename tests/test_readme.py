"""Every block of code in the README is run: here, or by .ci/run where it is a set-up, test or check command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from tests.process import environment

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:<!-- (.*?) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
RUN_BY_CI = {"set-up", "tests", "checks"}


def blocks(language):
    return [text for mark, found, text in BLOCKS if found == language and mark not in RUN_BY_CI]


def run(command, folder):
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    finished = subprocess.run(
        command, cwd=folder, env=environment(PATH=paths), capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]


def test_every_block_says_its_language_and_ci_runs_what_is_marked_for_it():
    assert {language for _, language, _ in BLOCKS} == {"bash", "python", "yaml"}
    script = (ROOT / ".ci" / "run").read_text()
    marked = [mark for mark, _, _ in BLOCKS if mark]
    assert sorted(marked) == sorted(RUN_BY_CI)
    for mark in marked:
        assert f"readme {mark}" in script


@pytest.mark.parametrize("text", blocks("python"))
def test_python(text, tmp_path):
    run([sys.executable, "-c", text], tmp_path)


@pytest.mark.parametrize("text", blocks("bash"))
def test_shell(text, tmp_path):
    for name in ("recipes", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    run(["bash", "-euc", text], tmp_path)


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
