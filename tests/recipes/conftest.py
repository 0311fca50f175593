"""Recipes are run as a user runs them: in a process of their own, in an empty folder."""

import subprocess
import sys
from pathlib import Path

import pytest

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
        finished = subprocess.run(
            [sys.executable, *start, *map(str, arguments)],
            cwd=folder,
            env=environment(COLUMNS="120"),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert not ok or finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
        return finished

    return run
