"""Build the user's module and data from arguments and files, as LightningCLI does."""

import json
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L
from lightning_trainingkit.commands.load import line_of

__all__ = ["Built", "build", "check_arguments"]

_NOT_IN_TRIALS = (
    *("callbacks", "logger", "fast_dev_run", "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps"),
    *("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "default_root_dir", "profiler"),
)
_SECTIONS = ("model", "data", "optimizer", "lr_scheduler")


@dataclass(frozen=True)
class Built:
    """What the steps need.

    Args:
        module: The user's module.
        data: A DataModule, a loader, or None for the module's own loader.
        trainer_options: Arguments of the Trainer that differ from Lightning's.
        settings: Arguments of the module's class.
        left_out: Arguments of the Trainer that a short trial has no use for.
        sections: All arguments of module and data, and of an optimizer and a schedule that LightningCLI makes, as plain
            values by section.
    """

    module: Any
    data: Any
    trainer_options: dict[str, Any]
    settings: dict[str, Any]
    left_out: tuple[str, ...]
    sections: dict[str, Any]


def build(
    kind: type,
    data: Any,
    others: Sequence[str],
    files: Sequence[Path | Mapping[str, Any]] = (),
    *,
    seed: bool = True,
) -> Built:
    """Build the module and its data.

    Args:
        kind: Class of the module.
        data: Class of the DataModule, a loader, a function without arguments that returns one, or None.
        others: Arguments such as ``--module.lr 0.1``, ``--data.batch_size=32`` or ``--trainer.precision bf16-mixed``.
        files: Files of LightningCLI with the same arguments, or their content. A later one overrules an earlier one.
        seed: Whether to seed the random states first, by 0 or by ``seed_everything``.

    Raises:
        ImportError: If jsonargparse is not installed.
        ValueError: If an argument is missing, unknown or has a wrong type, or a constructor raises.
    """
    is_module = isinstance(data, type) and issubclass(data, L.LightningDataModule)
    cli = _parsed(kind, data if is_module else None, _given(kind, data, others, files), seed)
    settings = cli.config.get("model") or {}  # none for a class without arguments
    return Built(
        module=cli.model,
        data=cli.datamodule if is_module or data is None else _loader(data),
        trainer_options=cli.trainer,
        settings={name: value for name, value in dict(settings).items() if not name.startswith("_")},
        left_out=tuple(cli.left_out),
        sections=cli.sections,
    )


def check_arguments(
    kind: type, data: type | None, others: Sequence[str], files: Sequence[Path | Mapping[str, Any]]
) -> None:
    """Check the arguments of ``build``. Nothing is built.

    Raises:
        ImportError: If jsonargparse is not installed.
        ValueError: If an argument is missing, unknown or has a wrong type.
    """
    _parsed(kind, data, _given(kind, data, others, files), seed=False, only_check=True)


def _given(kind: type, data: Any, others: Sequence[str], files: Sequence[Path | Mapping[str, Any]]) -> list[str]:
    """The arguments as LightningCLI takes them."""
    if find_spec("jsonargparse") is None:
        raise ImportError("The command needs jsonargparse. Run: pip install 'lightning-trainingkit[tuning]'.")
    if not (isinstance(kind, type) and issubclass(kind, L.LightningModule)):
        raise ValueError(f"`MODULE:CLASS` must be a LightningModule of {L.__name__}, got {kind!r}. {_advice(kind)}")
    is_module = isinstance(data, type) and issubclass(data, L.LightningDataModule)
    if not is_module and not files and any(text.startswith("--data.") for text in others):
        raise ValueError(
            f"`--data` must be a LightningDataModule where it has arguments, got {data!r}. Name its class."
        )
    given = [text for file in files for text in ("--config", _config(file, kind, data if is_module else None))]
    return given + [re.sub(r"^--module(?=[.=]|$)", "--model", text) for text in others]


def _parsed(kind: type, data: type | None, given: list[str], seed: bool, only_check: bool = False) -> Any:
    base: Any = import_module(f"{L.__name__}.cli").LightningCLI

    class OnlyBuild(base):  # type: ignore[misc]
        """LightningCLI without a Trainer: the steps make their own."""

        def before_instantiate_classes(self) -> None:
            """Drop the arguments of the Trainer that are Lightning's defaults, or have no use in a trial."""
            plain = json.loads(self.parser.dump(self.config, format="json", skip_validation=True))
            self.sections = {name: plain[name] or {} for name in _SECTIONS if name in plain}
            if seed and self.config.seed_everything is False:  # not given
                L.seed_everything(0, verbose=False)
            kept, defaults = self.config.trainer, self.parser.get_defaults().trainer
            self.left_out = [name for name in _NOT_IN_TRIALS if kept[name] != defaults[name]]
            self.asked = [name for name, value in kept.items(branches=True) if "." not in name]
            self.asked = [name for name in self.asked if name not in self.left_out and kept[name] != defaults[name]]
            for name in self.left_out:
                kept[name] = defaults[name]

        def instantiate_classes(self) -> None:
            """Build the classes, unless the arguments alone are checked."""
            if not only_check:
                super().instantiate_classes()

        def instantiate_trainer(self, **options: Any) -> dict[str, Any]:
            """Return the arguments instead of a Trainer."""
            return {name: self.config_init.trainer[name] for name in self.asked}

    options = {
        "save_config_callback": None,
        "seed_everything_default": False,
        "parser_kwargs": {"exit_on_error": False},
    }
    try:
        with warnings.catch_warnings(), patch.object(sys, "argv", sys.argv[:1]):
            warnings.filterwarnings("ignore", module="jsonargparse")
            return OnlyBuild(kind, data, args=given, run=False, **options)
    except import_module("argparse").ArgumentError as error:
        raise ValueError(_said(str(error), kind, given)) from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}{line_of(error)}"
        raise ValueError(f"`MODULE:CLASS` must be built without an error, got {said}. Mend the arguments.") from error


def _said(error: str, kind: type, given: Sequence[str]) -> str:
    """Say an error of jsonargparse in the words of this command."""
    error = " ".join(error.replace('"model.', '"module.').replace(" model.", " module.").split())
    if missing := re.search(r"arguments are required: (.*)", error):
        names = [name.strip() for name in missing[1].split(",")]
        owner = kind.__name__ if names[0].startswith("module.") else "the DataModule"
        shown = " and ".join(f"`--{name}`" for name in names)
        say = " ".join(f"--{name} VALUE" for name in names)
        return f"{shown} must be given, since {owner} has no default, got none. Add {say}, or a file by --config."
    if unknown := re.search(r"unrecognized arguments: (\S+)", error):
        name = unknown[1].partition("=")[0]
        known = import_module("inspect").signature(kind).parameters
        near = get_close_matches(name.replace("--model.", ""), known, cutoff=0.5)
        advice = (
            f"Did you mean {', '.join(f'--module.{each}' for each in near)}?" if near else "See the class's __init__."
        )
        shown = name.replace("--model", "--module")
        return (
            f"`{shown}` must be an argument of the module, the DataModule or the Trainer, got an unknown name. {advice}"
        )
    return f"The arguments must fit the classes, got: {error.rstrip('.')}. Change the argument."


def _config(file: Path | Mapping[str, Any], kind: type, data: type | None) -> str:
    """Read a file of LightningCLI, and return it as a text in which the classes are the given ones."""
    import yaml

    try:
        found = file if isinstance(file, Mapping) else yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"`--config` must be a YAML file of LightningCLI, got {file}: {error}. Name another."
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"`--config` must hold settings by name, got {file}, which does not. Name another.")
    found = {("model" if name == "module" else name): value for name, value in found.items() if value is not None}
    for name, chosen in (("model", kind), ("data", data)):
        settings = found.get(name)
        if chosen is not None and isinstance(settings, Mapping) and "class_path" in settings:
            if str(settings["class_path"]).rpartition(".")[2] != chosen.__name__:
                raise ValueError(
                    f"`--config` must hold the settings of {chosen.__name__} under {name}, got those of "
                    f"{settings['class_path']}. Name that class on the command line."
                )
            found[name] = {**(settings.get("init_args") or {}), **(settings.get("dict_kwargs") or {})}
    return json.dumps({name: value for name, value in found.items() if name != "ckpt_path"}, default=str)


def _loader(data: Any) -> Any:
    if isinstance(data, DataLoader):
        return data
    if not callable(data):
        raise ValueError(
            f"`--data` must name a DataModule, a loader, or a function that returns one, got {data!r}. {_advice(data)}"
        )
    try:
        return data()
    except Exception as error:
        said = f"{type(error).__name__}: {error}{line_of(error)}"
        raise ValueError(f"`--data` must return a loader when it is called, got {said}. Mend it.") from error


def _advice(value: Any) -> str:
    """Say what to do about a class that is no LightningModule of the package in use."""
    for base in getattr(value, "__mro__", ()):
        package = base.__module__.partition(".")[0]
        if base.__name__ in ("LightningModule", "LightningDataModule") and package != L.__name__.partition(".")[0]:
            return f"Set the variable TRAININGKIT_LIGHTNING={package}, or import one package everywhere."
    return "Name a class that inherits from it."
