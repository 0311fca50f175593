"""A configuration as a file of LightningCLI."""

import inspect
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_trainingkit._files import write_bytes
from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.trials.python_path import python_path
from lightning_trainingkit.tuning.trials.source import Source

__all__ = ["cli_sections", "is_plain", "left_out", "plain", "write_config"]

_PLAIN = (str, int, float, bool, type(None))
_DATA = "data."


def cli_sections(source: Source) -> dict[str, Any]:
    """The sections ``model`` and ``data`` of a file of LightningCLI, with the present values.

    Args:
        source: What builds the module. A source of another kind may bring ``sections`` of its own.

    Returns:
        The sections, or ``{"missing": why}`` if they cannot be written: a function builds the module, or an argument is
        an object.
    """
    own = getattr(source, "sections", None)
    if own is not None:
        return dict(own() if callable(own) else own)
    makers = getattr(source.build, "args", ())
    found: dict[str, Any] = {}
    for section, maker in zip(("model", "data"), makers, strict=False):
        if maker is None:
            continue
        kind = getattr(maker, "call", None)
        if not isinstance(kind, type):
            held = f"a function, {maker.title}" if kind is not None else f"an object of {maker.title}"
            return {"missing": f"{section} is made by {held}. Give a class, or call save_hyperparameters."}
        arguments = {name: value for name, value in maker.given.items() if not _is_default(kind, name, value)}
        odd = [name for name, value in arguments.items() if not is_plain(value)]
        if odd:
            return {"missing": f"{kind.__name__} has arguments that YAML does not hold: {', '.join(odd)}."}
        found[section] = {
            "class_path": _path(kind),
            "init_args": {name: plain(each) for name, each in arguments.items()},
        }
    return found if "model" in found else {"missing": "the module is made by a function. Give its class."}


def write_config(
    path: str | os.PathLike[str],
    sections: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
    *,
    epochs: int,
    monitor: str,
    mode: str,
    seed: int,
    trainer_options: Mapping[str, Any],
) -> str:
    """Write a file that LightningCLI runs, with EarlyStopping and BestCheckpoint.

    Args:
        path: The file.
        sections: What ``cli_sections`` returned.
        hyperparameters: Values that replace the present ones.
        epochs: Epochs of the training.
        monitor: Metric by which the best epoch is chosen.
        mode: Better end of the metric.
        seed: Seed of the training.
        trainer_options: Further arguments of the Trainer. Objects are left out.

    Returns:
        The command that trains it, for a shell in the working folder.

    Raises:
        ImportError: If PyYAML is not installed.
        ValueError: If the configuration cannot be written.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError("A file in YAML needs PyYAML. Run: pip install 'lightning-trainingkit[tuning]'.") from error
    if "missing" in sections:
        raise ValueError(f"`module` must be a class with plain arguments, got none: {sections['missing']}")
    content: dict[str, Any] = {"seed_everything": seed}
    watch = {"monitor": monitor, "mode": mode}
    content["trainer"] = {
        "max_epochs": epochs,
        **{name: value for name, value in trainer_options.items() if is_plain(value)},
        "callbacks": [
            {
                "class_path": "lightning_trainingkit.EarlyStopping",
                "init_args": watch | {"patience": max(5, epochs // 4)},
            },
            {"class_path": "lightning_trainingkit.BestCheckpoint", "init_args": watch},
        ],
    }
    for section, given in sections.items():
        if section not in ("model", "data"):  # an optimizer or a schedule that LightningCLI makes
            content[section] = given
            continue
        mine = {
            (name.removeprefix(_DATA) if section == "data" else name): value
            for name, value in hyperparameters.items()
            if name.startswith(_DATA) == (section == "data")
        }
        content[section] = {**given, "init_args": {**given.get("init_args", {}), **mine}}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    program = f'python -c "from {L.__name__}.cli import LightningCLI; LightningCLI()"'
    command = f"{python_path(content)}{program} fit --config {shlex.quote(os.fspath(path))}"
    write_bytes(Path(path), f"# {command}\n{text}".encode())
    return command


def left_out(settings: Mapping[str, Any]) -> str:
    """Say which parts of a trial's training ``write_config`` leaves out, as YAML does not hold objects.

    Args:
        settings: Settings of a search. They name its callbacks and the Trainer's options that are objects.

    Example:
        >>> left_out({"callbacks": ["Mixup"], "trainer_objects": []})
        'A configuration file trains without callbacks of the search: Mixup. Add them to the file.'
    """
    callbacks, options = settings.get("callbacks", ()), settings.get("trainer_objects", ())
    parts = [f"callbacks of the search: {', '.join(callbacks)}"] if callbacks else []
    parts += [f"options of the Trainer that are objects: {', '.join(options)}"] if options else []
    return f"A configuration file trains without {', and without '.join(parts)}. Add them to the file." if parts else ""


def _path(kind: type) -> str:
    place = kind.__module__
    if place == "__main__":  # a script: its file, imported, has another name
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        place = spec.name if spec is not None else Path(getattr(sys.modules["__main__"], "__file__", "__main__")).stem
    return f"{place}.{kind.__qualname__}"


def _is_default(kind: type, name: str, value: Any) -> bool:
    default = getattr(inspect.signature(kind).parameters.get(name), "default", inspect.Parameter.empty)
    return type(default) is type(value) and isinstance(value, _PLAIN) and default == value


def is_plain(value: Any) -> bool:
    """Whether YAML and JSON hold a value."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_plain(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, _PLAIN)


def plain(value: Any) -> Any:
    """A value as JSON holds it: tuples are lists."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
