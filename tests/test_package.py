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


def python(code):
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_bare_import_costs_nothing():
    code = "import sys, lightning_trainingkit; print({'torch', 'lightning', 'wandb', 'numpy'} & set(sys.modules))"
    assert python(code) == "set()\n"


def test_the_public_names_are_those_of_the_stub_and_each_is_there():
    stub = (ROOT / "lightning_trainingkit" / "__init__.pyi").read_text()
    assert set(re.findall(r" as (\w+)$", stub, re.MULTILINE)) == set(lightning_trainingkit.__all__)
    for name in lightning_trainingkit.__all__:
        assert getattr(lightning_trainingkit, name) is not None


@pytest.mark.parametrize("package", ["functional", "nn"])
def test_functional_and_nn_work_where_neither_lightning_nor_wandb_is_installed(package):
    module = importlib.import_module(f"lightning_trainingkit.{package}")
    names = [f"{module.__name__}.{found.name}" for found in pkgutil.iter_modules(module.__path__)]
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


def test_every_public_callback_has_a_row_in_the_readme():
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    callbacks = {name for name in lightning_trainingkit.__all__ if _is_callback(getattr(lightning_trainingkit, name))}
    assert set(table) == callbacks


def test_import_linter_keeps_every_public_callback_from_importing_another():
    settings = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r"lightning_trainingkit\.callbacks\.\w+", settings)
    values = [getattr(lightning_trainingkit, name) for name in lightning_trainingkit.__all__]
    assert sorted(listed) == sorted(value.__module__ for value in values if _is_callback(value))


def _is_callback(value):
    return inspect.isclass(value) and issubclass(value, L.Callback)
