import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest

import lightning_trainingkit

ROOT = Path(__file__).parents[1]
DOORS = ["functional", "nn", "data", "tuning"]


def python(code):
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_bare_import_costs_nothing():
    code = "import sys, lightning_trainingkit; print({'torch', 'lightning', 'wandb', 'numpy'} & set(sys.modules))"
    assert python(code) == "set()\n"


def test_the_public_names_are_those_of_the_stub_and_each_is_there():
    stub = (ROOT / "lightning_trainingkit" / "__init__.pyi").read_text()
    packages = set(re.findall(r"^from \. import (\w+)", stub, re.MULTILINE))
    assert set(re.findall(r" as (\w+)$", stub, re.MULTILINE)) - packages == set(lightning_trainingkit.__all__)
    for name in lightning_trainingkit.__all__:
        assert getattr(lightning_trainingkit, name) is not None


def test_a_star_import_leaves_the_nn_of_torch_alone():
    code = "from torch import nn\nfrom lightning_trainingkit import *\nnn.Linear(2, 2), EarlyStopping"
    python(code)


@pytest.mark.parametrize("package", ["functional", "nn"])
def test_functional_and_nn_work_where_neither_lightning_nor_wandb_is_installed(package):
    module = importlib.import_module(f"lightning_trainingkit.{package}")
    names = [found.name for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}.")]
    block = "import sys\nsys.modules.update(dict.fromkeys(['lightning', 'wandb', 'torchmetrics', 'sklearn', 'timm']))\n"
    python(block + "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))


def test_every_public_class_and_function_is_documented():
    for name in lightning_trainingkit.__all__:
        value = getattr(lightning_trainingkit, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
            arguments = [each for each in inspect.signature(value).parameters if each != "self"]
            for argument in arguments:
                assert re.search(rf"^ {{4}}{argument}: ", inspect.getdoc(value), re.MULTILINE), f"{name}: {argument}"


def test_docstrings_of_classes_are_short():
    packages = [lightning_trainingkit, *(importlib.import_module(f"lightning_trainingkit.{door}") for door in DOORS)]
    classes = {getattr(package, name) for package in packages for name in package.__all__}
    too_long = []
    for value in filter(inspect.isclass, classes):
        before, _, after = inspect.getdoc(value).partition("\nArgs:\n")
        if (words := len(before.split())) > 150:
            too_long.append(f"{value.__name__}: {words} words before Args")
        for entry in re.split(r"\n(?= {4}\w)", re.split(r"\n(?! )", after)[0]):
            if (lines := len(entry.strip("\n").splitlines())) > 3:
                too_long.append(f"{value.__name__}: {lines} lines for {entry.strip().partition(':')[0]}")
    assert not too_long, "The card takes what is too long:\n" + "\n".join(sorted(too_long))


def test_every_public_callback_has_a_row_in_the_readme():
    cells = re.findall(r"^\| (\[`[^|]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)  # the first of each row
    table = [name for cell in cells for name in re.findall(r"\[`(\w+)`\]\(", cell)]
    callbacks = {name for name in lightning_trainingkit.__all__ if _is_callback(getattr(lightning_trainingkit, name))}
    assert set(table) == callbacks


@pytest.mark.parametrize("door", DOORS)
def test_what_stands_behind_a_door_is_there_with_its_arguments_explained_and_an_example_that_runs(door):
    package = importlib.import_module(f"lightning_trainingkit.{door}")
    for name in package.__all__:
        value = getattr(package, name)
        if not callable(value):
            continue  # a constant
        text = inspect.getdoc(value) or ""
        if inspect.isclass(value):  # an inherited argument is explained once, by the base
            text = "\n".join(inspect.getdoc(each) or "" for each in value.__mro__[:-1])
        arguments = [each for each in inspect.signature(value).parameters if each != "self"]
        for argument in arguments:
            assert re.search(rf"^ {{4}}{argument}: ", text, re.MULTILINE), f"{door}.{name}: {argument}"
        assert ">>>" in text, f"{door}.{name} has no example"  # the examples are run as doctests


def test_recipes_import_nothing_private():
    for file in (ROOT / "recipes").rglob("*.py"):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [
            part for node in imports for part in [*str(node.module).split("."), *(each.name for each in node.names)]
        ]
        assert not [name for name in names if name.startswith("_") and name != "__future__"], file.name


def test_names_of_files_begin_with_an_underscore_where_ideas_share_them_alone():
    folders = [ROOT / "lightning_trainingkit" / name for name in ("nn", "callbacks")]
    private = {file.name for folder in folders for file in folder.rglob("_[a-z]*.py")}
    assert private == {"_lightning.py", "_best_weights.py", "_broadcast.py"}
    shared = re.findall(
        r"callbacks\.\*\* -> lightning_trainingkit\.callbacks\.(\w+)", (ROOT / "pyproject.toml").read_text()
    )
    assert {f"{name}.py" for name in shared} == private
    assert not list((ROOT / "lightning_trainingkit").rglob("test_*.py"))


def _is_callback(value):
    return inspect.isclass(value) and issubclass(value, L.Callback)
