"""CONTRIBUTING.md is true: its paths exist, its map is complete, its example works, and no place is forgotten."""

import doctest
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap

import lightning as L
import pytest

import lightning_trainingkit
from tests.contract import test_contract as contract
from tests.contract.table import CASES
from tests.process import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MAP = TEXT.partition("## The map")[2].partition("\n## ")[0]
EXAMPLE = dict(re.findall(r"^\d\. `(\S+\.py)`.*?^   ~~~python\n(.*?)^   ~~~$", TEXT, re.MULTILINE | re.DOTALL))
CALLBACKS = {
    name: value
    for name in lightning_trainingkit.__all__
    if inspect.isclass(value := getattr(lightning_trainingkit, name)) and issubclass(value, L.Callback)
}
FILES = {name: ROOT / f"{value.__module__.replace('.', '/')}.py" for name, value in CALLBACKS.items()}


def test_each_path_exists():
    linked = {path.partition("#")[0] for path in re.findall(r"\]\(([^#:)][^:)]*)\)", TEXT)}
    named = set(re.findall(r"`((?:tests|recipes|lightning_trainingkit)/[\w/.]+)`", TEXT))
    named = {path for path in named if "gaussian_noise" not in path}
    assert [path for path in sorted(linked | named) if not (ROOT / path).exists()] == []


def test_each_callback_and_each_recipe_is_in_the_map():
    recipes = [path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.py")]
    assert [path for path in recipes if f"]({path})" not in MAP] == []
    assert [name for name, path in FILES.items() if f"[`{name}`]({path.relative_to(ROOT).as_posix()})" not in MAP] == []


def test_each_callback_class_is_public_unless_others_inherit_from_it():
    found = set()
    for path in (ROOT / "lightning_trainingkit" / "callbacks").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        values = vars(importlib.import_module(name)).values()
        found |= {value for value in values if inspect.isclass(value) and value.__module__ == name}
    callbacks = {each for each in found if issubclass(each, L.Callback)}
    bases = {base for each in callbacks for base in each.__mro__[1:]}
    assert callbacks - bases == {each for each in CALLBACKS.values() if ".callbacks." in each.__module__}


@pytest.mark.parametrize("name", CALLBACKS)
def test_each_callback_has_a_card_a_test_file_and_a_line_in_the_changelog(name):
    card = FILES[name].with_name("README.md")
    assert card.exists(), card
    assert re.search(rf"^#+ {name}$", card.read_text(), re.MULTILINE), card
    folder = ROOT / "tests" / FILES[name].parent.relative_to(ROOT / "lightning_trainingkit")
    assert (folder / f"test_{FILES[name].name}").exists()
    assert f"`{name}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's modules by path, as if they stood in the package."""
    modules = {}
    for path, text in EXAMPLE.items():
        file = tmp_path / path.rpartition("/")[2]
        file.write_text(textwrap.dedent(text))
        name = path.removesuffix(".py").replace("/", ".")
        specification = importlib.util.spec_from_file_location(name, file)
        modules[path] = module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, module)
        specification.loader.exec_module(module)
        if hasattr(module, "GaussianNoise"):
            monkeypatch.setattr(lightning_trainingkit, "GaussianNoise", module.GaussianNoise, raising=False)
    return modules


def test_the_example_runs_its_docstrings_and_its_tests(example):
    formula, callback, tests = example.values()
    for module in (formula, callback):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed
    tests.test_training_alone_sees_noise_of_the_given_spread()
    for std in (0, -0.1, "0.1"):
        tests.test_a_bad_spread(std)
    tests.test_a_batch_without_float_images()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # resumed on purpose
def test_the_example_passes_the_contract(example, tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "GaussianNoise", {"GaussianNoise": {"std": 0.1}})
    assert '"GaussianNoise": {"std": 0.1},' in TEXT
    contract.write_members(tmp_path)
    contract.test_evaluation_leaves_the_module_as_found("GaussianNoise", "test", True)
    contract.test_train_2_resume_train_2_equals_train_4("GaussianNoise", tmp_path)
    contract.test_state_dict_round_trips_and_the_callback_pickles("GaussianNoise", tmp_path / "pickled")
    contract.test_a_second_fit_works("GaussianNoise", tmp_path / "second")
    contract.test_it_is_built_from_a_yaml_file_with_the_names_that_python_uses("GaussianNoise", tmp_path, monkeypatch)
