"""The blocks of code in the Markdown files, and how the tests run them: as a user does.

Blocks of Python run. The scripts and options in blocks for a shell must exist, and so must the classes and arguments in
YAML. An HTML comment before a block may hold these marks:

- ``set-up``, ``tests``, ``checks``, ``install``: ``.ci/run`` runs the block. README alone has these.
- ``main``: ``.ci/run`` runs this block of README too, where the kit is installed as users install it.
- ``follows``: the block of Python continues the block of Python before it in the file.
- ``run``: the block for a shell runs too, in tests/recipes/test_quickstart.py.
- ``photos``: the block of Python finds a folder ``photos`` with two classes of images.
- ``slow``: the block of Python takes more than 10 s.
"""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests import process
from tests.process import ROOT, environment

_BLOCK = re.compile(r"^(?:<!-- ([^>]*) -->\n)?(?P<indent> *)```(\w*)\n(.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
RUN_BY_CI = {"set-up", "tests", "checks", "install"}
MARKS = {*RUN_BY_CI, "main", "follows", "run", "photos", "slow"}
FILES = [
    path
    for place in ("*.md", "lightning_trainingkit/**/*.md", "recipes/**/*.md", "tests/**/*.md")
    for path in sorted(ROOT.glob(place))
]


class Block(NamedTuple):
    """A block of code: its file, its number there from 1, its marks, its language, and the text."""

    file: str
    number: int
    marks: frozenset
    language: str
    text: str

    def __str__(self):
        return f"{self.file}:{self.number}"


def read_blocks(path):
    """The blocks of a Markdown file. A block that follows another one begins with its text."""
    found, before = [], ""
    for number, (marks, _, language, text) in enumerate(_BLOCK.findall(path.read_text(encoding="utf-8")), 1):
        marks, text = frozenset(marks.split(", ")) - {""}, textwrap.dedent(text)
        if language == "python":
            text = before = before + text if "follows" in marks else text
        found.append(Block(str(path.relative_to(ROOT)), number, marks, language, text))
    return found


BLOCKS = [block for path in FILES for block in read_blocks(path)]
_PYTHON = [block for block in BLOCKS if block.language == "python"]
SCRIPTS = [
    block
    for block, after in zip(_PYTHON, [*_PYTHON[1:], None], strict=True)
    if block.file != "CONTRIBUTING.md"  # tests/test_contributing.py puts its blocks into files
    and not (after and after.file == block.file and "follows" in after.marks)  # which runs this one too
]
"""The blocks of Python that run as scripts."""

# Warnings are errors, but for Lightning's usual advice to a short training on few workers, and torch's on itself.
_WARNINGS = (
    "import warnings as w; w.simplefilter('error'); "
    "w.filterwarnings('ignore', '.*does not have many workers'); "
    "w.filterwarnings('ignore', '.*is smaller than the logging interval'); "
    "w.filterwarnings('ignore', '.*LeafSpec.*is deprecated', FutureWarning); del w\n"
)


def blocks(language, file=None):
    """The text of each block of a language that .ci/run does not run, of all files or of one."""
    return [
        block.text
        for block in BLOCKS
        if block.language == language and file in (None, block.file) and not block.marks & RUN_BY_CI
    ]


def run_script(block, folder):
    """Run a block of Python as a script in an empty folder, and check that it succeeds."""
    if "photos" in block.marks:
        write_photos(folder)
    return process.run("-c", _WARNINGS + block.text, folder=folder, timeout=600)


def run_block(text, folder):
    """Run a block of a shell in a folder that has the project's, and check that it succeeds."""
    for name in ("recipes", "tests"):
        (folder / name).symlink_to(ROOT / name)
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env, command = environment(PATH=paths, COLUMNS="120"), ["bash", "-euc", text]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def write_photos(folder):
    """Write 24 small images of each of two classes, which differ in their brightness."""
    numbers = np.random.default_rng(0)
    for brightness, name in ((60, "cat"), (160, "dog")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(24):
            pixels = numbers.integers(brightness, brightness + 90, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.jpg")
