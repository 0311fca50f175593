"""Each block of code in the Markdown files runs or is checked: here, by the recipes' tests, or by .ci/run."""

import inspect
import json
import re
import shlex

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

import lightning_trainingkit
from tests import process
from tests.readme import BLOCKS, FILES, MARKS, RUN_BY_CI, SCRIPTS, run_script

KIT = process.ROOT / "lightning_trainingkit"
LANGUAGES = {"bash", "json", "python", "text", "yaml"}


def test_every_block_says_its_language_and_what_runs_it():
    for path in FILES:
        file = str(path.relative_to(process.ROOT))
        fences = [line for line in path.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * sum(block.file == file for block in BLOCKS), f"{file}: a block that no test finds"
    for block in BLOCKS:
        assert block.language in LANGUAGES, block
        assert block.marks <= MARKS, block
        if block.language == "bash" and block.file == "README.md":
            # tests/recipes run the recipes
            recipes = all(line.startswith("python recipes/") for line in block.text.splitlines())
            assert recipes or block.marks & {*RUN_BY_CI, "run"}, block
        if block.language == "json":
            json.loads(block.text)


def test_ci_runs_the_blocks_that_are_marked_for_it():
    script = (process.ROOT / ".ci" / "run").read_text()
    marks = [mark for block in BLOCKS for mark in block.marks & {*RUN_BY_CI, "main"}]
    assert sorted(marks) == sorted({*RUN_BY_CI, "main"})
    for mark in marks:
        assert f"readme {mark}" in script


def test_readme_is_short():
    assert len((process.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def _slow_where_marked(blocks):
    return [pytest.param(block, id=str(block), marks=[pytest.mark.slow] * ("slow" in block.marks)) for block in blocks]


@pytest.mark.parametrize("block", _slow_where_marked(SCRIPTS))
def test_python(block, tmp_path):
    run_script(block, tmp_path)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_shell_names_scripts_and_options_that_are_there(block):
    for command in re.split(r"&&|[;\n]", block.text):
        program, script, *arguments = [*shlex.split(command, comments=True), "", ""]
        if program == "python" and "/" in script:
            sources = [process.ROOT / script, KIT / "experiments" / "arguments.py"]
        elif program == "trainingkit":
            sources = [KIT / "cli.py", *(KIT / "commands").glob("*.py")]
        else:
            continue
        text = "".join(source.read_text(encoding="utf-8") for source in sources)
        options = [each.partition("=")[0] for each in [script, *arguments] if each.startswith("--")]
        options = [option for option in options if "." not in option]  # of a user's class: --module.lr
        assert [option for option in options if f'"{option}"' not in text] == [], command


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml" and "trainer:" in block.text], ids=str
)
def test_yaml(block, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    config = yaml.safe_load(block.text) | {"seed_everything": False}
    config["trainer"] |= {"logger": False, "accelerator": "cpu"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    project = lightning_trainingkit.ImageClassifier, lightning_trainingkit.DigitsDataModule
    arguments = ["--config", str(tmp_path / "config.yaml"), "--model.model=small_resnet", "--model.num_classes=10"]
    cli = LightningCLI(*project, run=False, save_config_callback=None, args=arguments)
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {entry["class_path"].split(".")[-1] for entry in config["trainer"]["callbacks"]} <= names


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_names_classes_and_arguments_that_are_there(block):
    def check(part):
        if isinstance(part, dict) and (path := part.get("class_path", "")).startswith("lightning_trainingkit."):
            value = getattr(lightning_trainingkit, path.removeprefix("lightning_trainingkit."))
            inspect.signature(value).bind(**part.get("init_args", {}))
        for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
            check(child)

    check(yaml.safe_load(block.text))
