"""What a command needs so that a new interpreter finds the classes that a file of LightningCLI names."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["python_path"]

_ASK = """
import sys
from importlib.util import find_spec
sys.path[:] = [folder for folder in sys.path if folder]
for name in sys.argv[1:]:
    spec = find_spec(name)
    print("" if spec is None else spec.origin or [*spec.submodule_search_locations][0])
"""


def python_path(sections: Mapping[str, Any]) -> str:
    """The variable PYTHONPATH before a command, with a space after it.

    A new interpreter is asked for the modules. Folders of modules that it does not find, or finds in another file, are
    named. It is empty where it finds all. The working folder does not count: LightningCLI leaves it while it reads a
    file.

    Args:
        sections: Sections of a file of LightningCLI.

    Example:
        >>> python_path({"model": {"class_path": "torch.nn.Linear"}})
        ''
    """
    files = {name: found for name in sorted(set(_modules(sections))) if (found := _file(name)) is not None}
    if not files:
        return ""
    asked = subprocess.run([sys.executable, "-c", _ASK, *files], capture_output=True, text=True, check=False)
    answers = asked.stdout.splitlines() + [""] * len(files)
    missing = [file for file, answer in zip(files.values(), answers, strict=False) if not _same(file, answer)]
    folders = dict.fromkeys(
        str(file.parent.parent if file.name == "__init__.py" or file.is_dir() else file.parent) for file in missing
    )
    return f"PYTHONPATH={shlex.quote(':'.join(folders))}:$PYTHONPATH " if folders else ""


def _modules(value: Any) -> Iterator[str]:
    """The outermost module of each ``class_path``, those in arguments too."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"].partition(".")[0]
        for each in value.values():
            yield from _modules(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _modules(each)


def _file(name: str) -> Path | None:
    """The file of an imported module, or the program's own script, or the folder of a package without a file."""
    module, script = sys.modules.get(name), getattr(sys.modules["__main__"], "__file__", None)
    if module is None:
        return _whole(script) if script is not None and Path(script).stem == name else None
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return next((_whole(each) for each in places if each is not None), None)


def _whole(path: str) -> Path:
    """The path without ``..``. Links stay: a module has the name of its link."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _same(file: Path, answer: str) -> bool:
    return bool(answer) and Path(answer).exists() and file.samefile(answer)
