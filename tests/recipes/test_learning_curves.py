"""The recipe as a user runs it: trainings are real, table and file agree, the picture is there."""

import json
from pathlib import Path

import pytest

from lightning_trainingkit.functional.curve_shape import SHAPES
from tests import process
from tests.process import environment

SCRIPT = Path(__file__).parents[2] / "recipes" / "reproduce" / "learning_curves.py"
SHAPES_RUN = ("cut_too_early", "overfit")


def run(*args: str) -> str:
    env = environment(COLUMNS="160", PYTHONWARNINGS="ignore")
    return process.run(SCRIPT, *args, env=env).stdout


@pytest.mark.slow
def test_planted_shapes_are_read_and_a_resumed_run_trains_none_of_them_again(tmp_path, grouped):
    folder = tmp_path / "out"
    options = ("--accelerator", "cpu", "--shapes", *SHAPES_RUN, "--output", str(folder))
    out = run(*options)
    found = json.loads((folder / "results.json").read_text())
    assert [(row["planted"], row["read"]) for row in found["rows"]] == [(shape, shape) for shape in SHAPES_RUN]
    assert found["metrics"]["right"] == 2
    for row in found["rows"]:
        assert f" {row['number']:.4g} " in out
        assert f"{row['planted']}: warn. " in out
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert grouped(folder, out) == {"train": list(SHAPES_RUN)}

    trained = {shape: (folder / shape / "results.json").stat().st_mtime_ns for shape in SHAPES_RUN}
    run(*options, "--resume")
    assert {shape: (folder / shape / "results.json").stat().st_mtime_ns for shape in SHAPES_RUN} == trained
    assert json.loads((folder / "results.json").read_text())["rows"] == found["rows"]


def test_help_names_every_shape_but_unclear():
    out = run("--help")
    assert "python recipes/reproduce/learning_curves.py" in out
    assert all(shape in out for shape in SHAPES if shape != "unclear")
