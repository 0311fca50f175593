"""Write the list of public names, ``lightning_trainingkit/README.md``, from the doors and their docstrings.

A door is a folder with an ``__init__.pyi``. Nothing is imported: the files are parsed.

python tests/list_names.py --write
"""

import ast
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lightning_trainingkit"
LIST = PACKAGE / "README.md"
HEAD = """# Public names

Each name, with the first sentence of its docstring and a link to its file. `help(NAME)` shows more.
The command `python tests/list_names.py --write` makes this list from the `__init__.pyi` files, and a test compares
the two.
"""


def listing():
    """The whole list as Markdown."""
    stubs = sorted(PACKAGE.rglob("__init__.pyi"), key=lambda stub: (len(stub.parts), stub))
    return "\n".join([HEAD, *map(_door, stubs)])


def _door(stub):
    """A door's section: its names in the order of the stub."""
    door = ".".join(stub.parent.relative_to(PACKAGE.parent).parts)
    lines = []
    for node in ast.parse(stub.read_text()).body:
        for alias in node.names:
            file = stub.parent / f"{(node.module or alias.name).replace('.', '/')}.py"
            if alias.name == "__version__" or (node.module is None and not file.exists()):
                continue  # a folder has a section of its own
            line = _first_sentence(file, None if node.module is None else alias.name)
            lines.append(f"- [`{alias.name}`]({file.relative_to(PACKAGE).as_posix()}): {line}\n")
    return f"## `{door}`\n\n{''.join(lines)}"


def _first_sentence(file, name):
    """The first sentence of what a file says about a name, or about itself; a constant's value."""
    tree = ast.parse(file.read_text())
    for node in [tree] if name is None else tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets):
            return f"`{ast.unparse(node.value)}`."
        # an overload has no docstring
        if name is None or (getattr(node, "name", None) == name and ast.get_docstring(node)):
            text = " ".join(ast.get_docstring(node).split("\n\n")[0].split())
            text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text).replace("``", "`")
            return re.split(r"(?<=\.)(?<!\.\.) (?=[A-Z`])", text)[0]
    raise LookupError(f"`{name}` must be defined in {file}, got no class, function or constant of this name.")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        LIST.write_text(listing())
    else:
        sys.stdout.write(listing())
