"""The source of a search whose classes are named on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.commands.build import Built, build, check_arguments
from lightning_trainingkit.commands.load import load
from lightning_trainingkit.tuning.searches.space_points import middle
from lightning_trainingkit.tuning.trials.makers import parameters_of
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.space import Space

__all__ = ["CommandSource", "command_source"]

_DATA = "data."


@dataclass(frozen=True)
class FromCommand:
    """Builds module and data as LightningCLI does, in the process of a trial.

    Args:
        module: ``MODULE:CLASS`` of the module, a file with its whole path.
        data: The same of the DataModule, or None.
        sections: All arguments, by section.
    """

    module: str
    data: str | None
    sections: Mapping[str, Any]

    def __call__(self, hyperparameters: Mapping[str, Any]) -> tuple[Any, Any]:
        """Build both. The random states are the trial's."""
        kind = load(self.module, "MODULE:CLASS")
        data = load(self.data, "--data") if self.data is not None else None
        built = build(kind, data, [], [self.sections, _sections_of(hyperparameters)], seed=False)
        return built.module, built.data


class CommandSource(Source):
    """A source whose classes are named on the command line. It knows its file of LightningCLI.

    Args:
        kind: Class of the module.
        data: Class of the DataModule, or None.
        call: Builds both.
        settings: Arguments of both.
        names: What can be searched.
    """

    def __init__(
        self, kind: type, data: type | None, call: FromCommand, settings: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        kinds = {"model": kind, "data": data}
        ours = ("lightning_trainingkit.commands.tune_source", "jsonargparse", f"{L.__name__}.cli")
        super().__init__(
            call,
            given=settings,
            names=names,
            describe=" on ".join(each.__name__ for each in kinds.values() if each is not None),
            modules=(*ours, *sorted({each.__module__ for each in kinds.values() if each is not None})),
        )
        self.sections = {
            name: {"class_path": f"{found.__module__}.{found.__qualname__}", "init_args": dict(given)}
            if (found := kinds.get(name))
            else given
            for name, given in call.sections.items()
        }


def command_source(
    module: str, data: str | None, others: Sequence[str], files: Sequence[Path], space: Space | None
) -> tuple[CommandSource, Built]:
    """Load both classes, check their arguments, and make the source.

    Args:
        module: ``MODULE:CLASS`` of the module.
        data: The same of the DataModule. None for the module's own loaders.
        others: Arguments as in LightningCLI.
        files: Files of LightningCLI.
        space: What is searched. The middle of a range stands for an argument without a value.

    Returns:
        The source, and what was built from the arguments.

    Raises:
        ValueError: If a class, an argument or a name of the space is wrong.
    """
    kind = load(module, "MODULE:CLASS")
    holder = load(data, "--data") if data is not None else None
    if holder is not None and not (isinstance(holder, type) and issubclass(holder, L.LightningDataModule)):
        raise ValueError(
            f"`--data` must be a LightningDataModule of {L.__name__}, got {holder!r}. A search validates: write a "
            "LightningDataModule with `train_dataloader` and `val_dataloader`."
        )
    parameters = dict(parameters_of(kind)) if isinstance(kind, type) else {}
    parameters |= {f"{_DATA}{name}": each for name, each in parameters_of(holder).items()} if holder is not None else {}
    names, example = tuple(parameters), dict[str, Any]()
    if space is not None:
        space.check_names(names)
        middles = {name: middle(each) for name, each in space.items()}
        check_arguments(kind, holder, others, [*files, _sections_of(middles)])
        example = {name: each for name, each in middles.items() if parameters[name].default is Parameter.empty}
    built = build(kind, holder, others, [_sections_of(example), *files])
    settings = dict(built.sections.get("model", {})) | {
        f"{_DATA}{name}": value for name, value in built.sections.get("data", {}).items()
    }
    call = FromCommand(_absolute(module), _absolute(data) if data is not None else None, built.sections)
    return CommandSource(kind, holder, call, settings, names), built


def _sections_of(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as sections of a file of LightningCLI."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in hyperparameters.items():
        section = "data" if name.startswith(_DATA) else "model"
        found.setdefault(section, {})[name.removeprefix(_DATA) if section == "data" else name] = value
    return found


def _absolute(text: str) -> str:
    where, _, name = text.rpartition(":")
    return f"{Path(where).absolute()}:{name}" if where.endswith(".py") else text
