"""Load what ``MODULE:NAME`` names: a class or a function of the user's own file or package."""

import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["line_of", "load"]


def load(text: str, option: str) -> Any:
    """Import a module and return the object that it holds.

    Call it before the kit's first class is imported: the kit follows the Lightning package that the file imports.

    Args:
        text: ``FILE.py:NAME`` or ``PACKAGE.MODULE:NAME``.
        option: The option that ``text`` was given to, for errors.

    Raises:
        ValueError: If the module cannot be imported, or does not hold the name.
    """
    where, colon, name = text.rpartition(":")
    if not (colon and where and name):
        raise ValueError(
            f"`{option}` must be FILE.py:NAME or PACKAGE.MODULE:NAME, got {text!r}. Name the class after a colon."
        )
    module = _module(where, option)
    if not hasattr(module, name):
        own = [each for each, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        near = get_close_matches(name, own, cutoff=0.5)
        shown = sorted(each for each in own if not each.startswith("_"))
        names = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(shown) or 'no class'}."
        raise ValueError(f"`{option}` must name a class that {where} holds, got {name!r}. {names}")
    return getattr(module, name)


def line_of(error: BaseException) -> str:
    """Return the user's line that raised an error, such as ``" (my_file.py, line 12)"``, or an empty text."""
    kit = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if not ("site-packages" in frame.filename or frame.filename.startswith((kit, "<")))
    ]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _module(where: str, option: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _file(Path(where).absolute(), option)
        sys.path.insert(0, str(Path.cwd()))
        return import_module(where)
    except ValueError:
        raise
    except Exception as error:
        if isinstance(error, ImportError) and "relative import" in str(error):
            advice = "A file of a package is named as PACKAGE.MODULE:NAME, from the folder that holds the package."
        else:
            advice = "Mend the import, and take the Python environment of your project."
        said = f"{type(error).__name__}: {error}{line_of(error)}"
        raise ValueError(
            f"`{option}` must name a module that can be imported, got {where}: {said}. {advice}"
        ) from error


def _file(path: Path, option: str) -> ModuleType:
    """Import a file under its own name, from its own folder, as ``python FILE.py`` would find it."""
    if not path.is_file():
        raise ValueError(f"`{option}` must name a file that exists, got {path}. Check the path.")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and Path(getattr(loaded, "__file__", None) or "") == path:
        return loaded
    if loaded is not None:
        raise ValueError(
            f"`{option}` must be a file whose name is no imported module's, got {path.name}. Rename the file."
        )
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
