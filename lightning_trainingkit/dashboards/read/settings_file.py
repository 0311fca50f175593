"""Read the ``hparams.yaml`` that Lightning writes beside a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_trainingkit.dashboards.read.record import flatten
from lightning_trainingkit.dashboards.read.regular_file import read_regular_file
from lightning_trainingkit.dashboards.read.run_files import why

__all__ = ["read_settings"]

_MAX_BYTES = 1_000_000
_MAX_NODES = 50_000
_MAX_DEPTH = 100


def read_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """Read the run's settings in ``folder``, flattened, and a note if that fails. No code from the file is run."""
    import yaml  # Lightning needs it to write the file

    path = folder / "hparams.yaml"
    try:
        text = read_regular_file(path, _MAX_BYTES)
        base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _check(yaml.parse(text, base))
        found = yaml.load(text, _plain_loader(base))
    except FileNotFoundError:
        return {}, ""
    except (yaml.YAMLError, OSError, ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        parts = filter(None, (getattr(error, "context", ""), getattr(error, "problem", "")))  # without the position
        reason = (": ".join(map(str, parts)) or why(error)).replace("\n", " ").removesuffix(".")
        return {}, f"{path.name} could not be read ({reason}): settings are missing."
    if found is not None and not isinstance(found, dict):
        return {}, f"{path.name} could not be read (it holds no settings by name): settings are missing."
    return flatten(found or {}), ""


def _check(events: Iterator[Any]) -> None:
    """Bound the number of nodes, with each alias written out. Lightning's own files hold aliases.

    A few lines of nested aliases can stand for billions of nodes. An alias within its own anchor never ends.
    """
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[list[Any]] = []  # anchor and number of nodes below, outermost first
    total = 0
    for event in events:
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            sizes.pop(event.anchor, None)  # the name now means the new node, which is not complete yet
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            sizes[event.anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} must come after its anchor's end")
            size = total_of_alias = sizes[event.anchor]
            total += total_of_alias
        if isinstance(event, yaml.NodeEvent):
            total += 1
        if open_nodes:
            open_nodes[-1][1] += size
        if total > _MAX_NODES or len(open_nodes) > _MAX_DEPTH:
            raise ValueError(f"it must have at most {_MAX_NODES:,} nodes and {_MAX_DEPTH} levels, got more")


def _plain_loader(base: Any) -> Any:
    class Plain(base):  # type: ignore[misc]
        """Read tuples as lists, unusual numbers and dates as texts, and other Python objects as their names."""

    for kind in ("int", "float", "timestamp", "binary"):
        Plain.add_constructor(f"tag:yaml.org,2002:{kind}", _number_or_text)
    Plain.add_multi_constructor("tag:yaml.org,2002:python/", _name_of_object)
    Plain.add_constructor(None, _name_of_unknown)
    return Plain


def _number_or_text(loader: Any, node: Any) -> Any:
    kind = node.tag.rpartition(":")[2]
    try:
        return {"int": loader.construct_yaml_int, "float": loader.construct_yaml_float}[kind](node)
    except (KeyError, ValueError, OverflowError):  # a date stays as it was written
        return loader.construct_scalar(node)


def _name_of_object(loader: Any, tag: str, node: Any) -> Any:
    return loader.construct_sequence(node, deep=True) if tag == "tuple" else tag


def _name_of_unknown(loader: Any, node: Any) -> str:
    return str(node.tag)
