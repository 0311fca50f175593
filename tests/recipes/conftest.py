"""Recipes are run as a user runs them: in a process of their own, in an empty folder; in this one where they refuse."""

import runpy
import sys
from pathlib import Path

import pytest

from lightning_trainingkit import experiments
from lightning_trainingkit.dashboards.read.gather import gather
from tests import process
from tests.process import environment

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="session")
def run_recipe():
    """Run ``python recipes/NAME ARGUMENTS`` in a folder; ``code``, which may plant a fault, runs first in it."""

    def run(name, *arguments, folder, code=None, ok=True):
        start = [str(RECIPES / name)]
        if code is not None:
            rest = f"import runpy, sys\nsys.argv[0] = {start[0]!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
            start = ["-c", f"{code}\n{rest}"]
        return process.run(*start, *arguments, folder=folder, env=environment(COLUMNS="120"), timeout=600, ok=ok)

    return run


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a recipe that must refuse its options, in this process, since a new one takes seconds to begin.

    Returns a function of the recipe, its options and the folder; it gives what the recipe said on stderr.
    """

    def run(name, *arguments, folder):
        monkeypatch.chdir(folder)
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # put back with the rest
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(experiments, "quiet", lambda: None)
        with pytest.raises(SystemExit) as raised:
            runpy.run_path(str(RECIPES / name), run_name="__main__")
        assert raised.value.code == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said

    return run


@pytest.fixture(scope="session")
def grouped():
    """Read a recipe's runs, check that all are finished and in one group of one project, and that its center is named.

    Returns a function of the folder, what the recipe printed, and the data; it gives the runs' names by job type.
    """

    def read(folder, said, data="digits"):
        runs, skipped = gather([folder])
        assert skipped == {}
        assert {(run.project, run.group, run.state) for run in runs} == {
            (f"trainingkit-{data}", folder.name, "finished")
        }
        assert f"Center: trainingkit dashboard {folder} --open" in said.replace("runs/", f"{folder.parent}/")
        found = {}
        for run in runs:
            found.setdefault(run.job_type, []).append(run.name)
        return {job_type: sorted(names) for job_type, names in found.items()}

    return read
