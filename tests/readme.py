"""README's blocks of code, and how the tests run those of a shell: as a user does."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.process import ROOT, environment

BLOCK = re.compile(r"(?:<!-- (.*?) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
RUN_BY_CI = {"set-up", "tests", "checks"}


def blocks(language):
    """The text of each block that no mark leaves to .ci/run."""
    return [text for mark, found, text in BLOCKS if found == language and mark not in RUN_BY_CI]


def run_block(text, folder):
    """Run a block of a shell in a folder that has the project's, and check that it succeeds."""
    for name in ("recipes", "tests"):
        (folder / name).symlink_to(ROOT / name)
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env, command = environment(PATH=paths, COLUMNS="120"), ["bash", "-euc", text]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
